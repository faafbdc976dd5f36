"""Attention of vision transformers as outputs: rollout and LeGrad."""
