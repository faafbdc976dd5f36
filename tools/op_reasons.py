"""Why operators have no gradient here; those whose types already say so are not listed."""

from __future__ import annotations


def _of(reason: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), reason)


RANDOM = "no gradient by nature: random results"
NO_IMAGE = "no image goes in: made from bounds, sizes or indices"
LOOPS = "loops: not done"
VALUES = "sizes that depend on values, or no tensors: not done"
NOT_DONE = "not done"

STANDARD_REASONS = {
    **_of(RANDOM, "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform"),
    **_of(RANDOM, "RandomUniformLike"),
    **_of(NO_IMAGE, "BlackmanWindow HammingWindow HannWindow MelWeightMatrix OneHot Range"),
    **_of(LOOPS, "Loop Scan SequenceMap"),
    **_of(VALUES, "OptionalGetElement Unique"),
    **_of("no gradient by nature: the bits of a float as something else", "BitCast"),
    **_of(NOT_DONE, "CumProd DFT DeformConv Det MaxRoiPool RoiAlign STFT TensorScatter"),
}

GENERATION = "for the generation of text"
EXPERTS = "for large language models: sparse attention, states, experts"
NO_KERNEL = "onnxruntime has no kernel on the CPU, or the operator is for training"
INTEGERS = "no gradient by nature: integers or strings"
PACKED = "weights packed in formats of language models: not done"

MICROSOFT_REASONS = {
    **_of(GENERATION, "BeamSearch GreedySearch NGramRepeatBlock Sampling WhisperBeamSearch"),
    **_of(GENERATION, "DecoderAttention DecoderMaskedMultiHeadAttention"),
    **_of(GENERATION, "DecoderMaskedSelfAttention BifurcationDetector SpeculativePrefixCommit"),
    **_of(EXPERTS, "BranchwiseRMSNorm CausalConvWithState ConvStateReplay DynamicSparseAttention"),
    **_of(EXPERTS, "EngramGate GatedAdd GatedDeltaNet GatedDeltaNetStateReplay GatedRMSNorm"),
    **_of(EXPERTS, "GemmaRotaryEmbedding GroupQueryAttention HyperConnectionLowRankMix"),
    **_of(EXPERTS, "HyperConnectionPostMix HyperConnectionPreMix LinearAttention"),
    **_of(EXPERTS, "LinearAttentionGate LongformerAttention MRotaryEmbedding Mamba2Verify MoE"),
    **_of(EXPERTS, "MoEGroupRouter MoEPacked NGramHashMapping PackedSparseAttentionIndexer"),
    **_of(EXPERTS, "PackedSparseAttentionIndexerMerge PagedAttention QMoE RMSNormRotary"),
    **_of(EXPERTS, "RouterGateUpProj SparseAttention SparseAttentionIndexer"),
    **_of(EXPERTS, "SparsePagedAttention VarlenCausalConvWithState VarlenNGramHashMapping SwiGLU"),
    **_of(NO_KERNEL, "ComplexMul ComplexMulConj EPContext GatedRelativePositionBias GemmFastGelu"),
    **_of(NO_KERNEL, "GemmFloat8 Irfft IsAllFinite MatMulPacked PackedAttention QLinearReduceMean"),
    **_of(NO_KERNEL, "PackedMultiHeadAttention RelativePositionBias RemovePadding"),
    **_of(NO_KERNEL, "RestorePadding Rfft Snpe TorchEmbedding QOrderedAttention QOrderedGelu"),
    **_of(NO_KERNEL, "QOrderedLayerNormalization QOrderedLongformerAttention QOrderedMatMul"),
    **_of(NO_KERNEL, "QuantizeBFP DequantizeBFP QuantizeWithOrder DequantizeWithOrder"),
    **_of(INTEGERS, "MatMulInteger16 MulInteger MurmurHash3 ReduceSumInteger Tokenizer"),
    **_of(PACKED, "GatherBlockQuantized MatMulBlockQuantizedFp4Weight MatMulBnb4 MatMulFpQ4"),
    **_of(PACKED, "MatMulBlockQuantizedFp8Weight MatMulNBitsMlp MatMulNBitsQLoRA MatMulNBitsQkv"),
    **_of(LOOPS, "AttnLSTM DynamicQuantizeLSTM"),
    **_of(NO_IMAGE, "EmbedLayerNormalization QEmbedLayerNormalization Range WordConvEmbedding"),
    **_of(VALUES, "DynamicTimeWarping GatherPacked Unique"),
    **_of(NOT_DONE, "CDist ConvTransposeWithDynamicPads CropAndResize Inverse"),
    **_of(NOT_DONE, "MaxpoolWithMask QAttention SampleOp ScaledSiLU SparseToDenseMatMul"),
    **_of(NOT_DONE, "UnfoldTensor"),
}

CLASSICAL = "classical models and their preparation, on columns of values or text: not done"
TREES = "no gradient by nature: trees are step functions"

ML_REASONS = {
    **_of(CLASSICAL, "ArrayFeatureExtractor Binarizer CastMap CategoryMapper DictVectorizer"),
    **_of(CLASSICAL, "FeatureVectorizer Imputer LabelEncoder LinearRegressor OneHotEncoder"),
    **_of(CLASSICAL, "SVMClassifier SVMRegressor ZipMap"),
    **_of(TREES, "TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor"),
}

REASONS = {
    "": STANDARD_REASONS,
    "ai.onnx.ml": ML_REASONS,
    "com.microsoft": MICROSOFT_REASONS,
}
"""By domain; the domains whose operators are all listed."""
