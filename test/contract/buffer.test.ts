import { ThreadedBuffer } from "../../edge/buffer/threaded.ts";
import { bufferContract } from "./buffer.ts";

bufferContract("sqlite in a thread", (options) => new ThreadedBuffer(options));
