/** The page that `make web-bench` measures in: the engine as it is, and wllama beside it. */
import path from "node:path";

import { defineConfig } from "vite";

const HERE = import.meta.dirname;

export default defineConfig({
  root: path.join(HERE, "tests/bench"),
  base: "./",
  build: { target: "es2022", outDir: path.join(HERE, "../build/web-bench/site"), emptyOutDir: true },
  worker: { format: "es" },
});
