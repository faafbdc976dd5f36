// A heat map in JavaScript, from a file exported with --fuse-cam: no Python, no image library.
//
//   npm install onnxruntime-web
//   node fused_cam.mjs model.cam.onnx image.f32 1,3,224,224 [class]
//
// image.f32 holds the prepared input as raw float32, in the order of the model. Written is
// image.f32.cam, the map as raw float32. onnxruntime-web takes no optional inputs: export with
// --class-input required, or with --class-input fixed:-1 for the highest score and no input at all.

import { readFile, writeFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";

const [modelFile, imageFile, shape, chosen = "-1"] = process.argv.slice(2);
const session = await ort.InferenceSession.create(await readFile(modelFile));
const bytes = await readFile(imageFile);
const pixels = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
const image = session.inputNames.find((name) => name !== "cam_class");
const feeds = { [image]: new ort.Tensor("float32", pixels, shape.split(",").map(Number)) };
if (session.inputNames.includes("cam_class")) {
  feeds.cam_class = new ort.Tensor("int64", [BigInt(chosen)], [1]);
}

const { cam, cam_classes, cam_scales } = await session.run(feeds);
const [, , height, width] = cam.dims; // (N, 1, H, W)
const hottest = cam.data.indexOf(Math.max(...cam.data.subarray(0, height * width)));
console.log(`class ${cam_classes.data[0]}, map ${height} x ${width}`);
console.log(`hottest at row ${Math.floor(hottest / width)}, column ${hottest % width}`);
if (cam_scales) console.log(`0 and 1 stand for ${[...cam_scales.data.subarray(0, 2)].join(" and ")}`);
await writeFile(`${imageFile}.cam`, new Uint8Array(cam.data.buffer));
