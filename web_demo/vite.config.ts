/** The build: the page, its worker, the service worker, and onnxruntime's files beside them as they are. */
import { createHash } from "node:crypto";
import { cpSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";

import { defineConfig, type Plugin } from "vite";

const HERE = import.meta.dirname;
const RUNTIME = ["ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm", "ort.wasm.min.mjs"];

/** The runtime is loaded by URL, in the page as in Node: it is not bundled. */
function runtime(): Plugin {
  return {
    name: "runtime",
    buildStart() {
      const from = path.join(HERE, "node_modules/onnxruntime-web/dist");
      for (const name of RUNTIME) cpSync(path.join(from, name), path.join(HERE, "public/runtime", name));
    },
  };
}

/** List what the service worker keeps, and give it a version that changes with any of it. */
function precache(): Plugin {
  return {
    name: "precache",
    writeBundle({ dir }) {
      const kept = readdirSync(dir!, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => path.relative(dir!, path.join(entry.parentPath, entry.name)).split(path.sep).join("/"))
        .filter((name) => !/^(models\/|sw\.js$|precache\.json$)|\.map$|(^|\/)\./.test(name))
        .sort();
      const hash = createHash("sha256");
      for (const name of kept) hash.update(name).update(readFileSync(path.join(dir!, name)));
      writeFileSync(path.join(dir!, "precache.json"), JSON.stringify(["./", ...kept]));
      const worker = path.join(dir!, "sw.js");
      const text = readFileSync(worker, "utf8").replace("__VERSION__", hash.digest("hex").slice(0, 16));
      writeFileSync(worker, text);
    },
  };
}

// Threads of the runtime would need these; they also keep other pages out of this one's process.
const headers = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

export default defineConfig({
  base: "./",
  plugins: [runtime(), precache()],
  build: {
    target: "es2022",
    modulePreload: { polyfill: false },
    rolldownOptions: {
      input: { main: "index.html", sw: "src/service-worker.ts" },
      output: { entryFileNames: (chunk) => (chunk.name === "sw" ? "sw.js" : "assets/[name]-[hash].js") },
    },
  },
  worker: { format: "es" },
  server: { headers },
  preview: { headers, port: 4173, strictPort: true },
});
