/*!
 * ONNX Runtime Web v1.30.0
 * Copyright (c) Microsoft Corporation. All rights reserved.
 * Licensed under the MIT License.
 */
var Ve = Object.defineProperty;
var On = Object.getOwnPropertyDescriptor;
var Ln = Object.getOwnPropertyNames;
var Pn = Object.prototype.hasOwnProperty;
var Je = ((e) =>
  typeof require < "u"
    ? require
    : typeof Proxy < "u"
      ? new Proxy(e, { get: (t, n) => (typeof require < "u" ? require : t)[n] })
      : e)(function (e) {
  if (typeof require < "u") return require.apply(this, arguments);
  throw Error('Dynamic require of "' + e + '" is not supported');
});
var E = (e, t, n) => () => {
  if (n) throw n[0];
  try {
    return (e && (t = e((e = 0))), t);
  } catch (o) {
    throw ((n = [o]), o);
  }
};
var qe = (e, t) => {
    for (var n in t) Ve(e, n, { get: t[n], enumerable: !0 });
  },
  Dn = (e, t, n, o) => {
    if ((t && typeof t == "object") || typeof t == "function")
      for (let r of Ln(t))
        !Pn.call(e, r) && r !== n && Ve(e, r, { get: () => t[r], enumerable: !(o = On(t, r)) || o.enumerable });
    return e;
  };
var wt = (e) => Dn(Ve({}, "__esModule", { value: !0 }), e);
var Se,
  q,
  pe,
  _n,
  ht,
  Ye = E(() => {
    "use strict";
    ((Se = new Map()),
      (q = []),
      (pe = (e, t, n) => {
        if (t && typeof t.init == "function" && typeof t.createInferenceSessionHandler == "function") {
          let o = Se.get(e);
          if (o === void 0) Se.set(e, { backend: t, priority: n });
          else {
            if (o.priority > n) return;
            if (o.priority === n && o.backend !== t)
              throw new Error(`cannot register backend "${e}" using priority ${n}`);
          }
          if (n >= 0) {
            let r = q.indexOf(e);
            r !== -1 && q.splice(r, 1);
            for (let i = 0; i < q.length; i++)
              if (Se.get(q[i]).priority <= n) {
                q.splice(i, 0, e);
                return;
              }
            q.push(e);
          }
          return;
        }
        throw new TypeError("not a valid backend");
      }),
      (_n = async (e) => {
        let t = Se.get(e);
        if (!t) return "backend not found.";
        if (t.initialized) return t.backend;
        if (t.aborted) return t.error;
        {
          let n = !!t.initPromise;
          try {
            return (n || (t.initPromise = t.backend.init(e)), await t.initPromise, (t.initialized = !0), t.backend);
          } catch (o) {
            return (n || ((t.error = `${o}`), (t.aborted = !0)), t.error);
          } finally {
            delete t.initPromise;
          }
        }
      }),
      (ht = async (e) => {
        let t = e.executionProviders || [],
          n = t.map((u) => (typeof u == "string" ? u : u.name)),
          o = n.length === 0 ? q : n,
          r,
          i = [],
          s = new Set();
        for (let u of o) {
          let f = await _n(u);
          typeof f == "string" ? i.push({ name: u, err: f }) : (r || (r = f), r === f && s.add(u));
        }
        if (!r) throw new Error(`no available backend found. ERR: ${i.map((u) => `[${u.name}] ${u.err}`).join(", ")}`);
        for (let { name: u, err: f } of i)
          n.includes(u) &&
            console.warn(
              `removing requested execution provider "${u}" from session options because it is not available: ${f}`,
            );
        let a = t.filter((u) => s.has(typeof u == "string" ? u : u.name));
        return [r, new Proxy(e, { get: (u, f) => (f === "executionProviders" ? a : Reflect.get(u, f)) })];
      }));
  });
var bt = E(() => {
  "use strict";
  Ye();
});
var yt,
  gt = E(() => {
    "use strict";
    yt = "1.30.0";
  });
var Et,
  D,
  Ze = E(() => {
    "use strict";
    gt();
    ((Et = "warning"),
      (D = {
        wasm: {},
        webgl: {},
        webgpu: {},
        versions: { common: yt },
        set logLevel(e) {
          if (e !== void 0) {
            if (typeof e != "string" || ["verbose", "info", "warning", "error", "fatal"].indexOf(e) === -1)
              throw new Error(`Unsupported logging level: ${e}`);
            Et = e;
          }
        },
        get logLevel() {
          return Et;
        },
      }));
    Object.defineProperty(D, "logLevel", { enumerable: !0 });
  });
var B,
  St = E(() => {
    "use strict";
    Ze();
    B = D;
  });
var Tt,
  It,
  At = E(() => {
    "use strict";
    ((Tt = (e, t) => {
      let n = typeof document < "u" ? document.createElement("canvas") : new OffscreenCanvas(1, 1);
      ((n.width = e.dims[3]), (n.height = e.dims[2]));
      let o = n.getContext("2d");
      if (o != null) {
        let r, i;
        t?.tensorLayout !== void 0 && t.tensorLayout === "NHWC"
          ? ((r = e.dims[2]), (i = e.dims[3]))
          : ((r = e.dims[3]), (i = e.dims[2]));
        let s = t?.format !== void 0 ? t.format : "RGB",
          a = t?.norm,
          u,
          f;
        (a === void 0 || a.mean === void 0
          ? (u = [255, 255, 255, 255])
          : typeof a.mean == "number"
            ? (u = [a.mean, a.mean, a.mean, a.mean])
            : ((u = [a.mean[0], a.mean[1], a.mean[2], 0]), a.mean[3] !== void 0 && (u[3] = a.mean[3])),
          a === void 0 || a.bias === void 0
            ? (f = [0, 0, 0, 0])
            : typeof a.bias == "number"
              ? (f = [a.bias, a.bias, a.bias, a.bias])
              : ((f = [a.bias[0], a.bias[1], a.bias[2], 0]), a.bias[3] !== void 0 && (f[3] = a.bias[3])));
        let l = i * r,
          c = 0,
          d = l,
          p = l * 2,
          h = -1;
        s === "RGBA"
          ? ((c = 0), (d = l), (p = l * 2), (h = l * 3))
          : s === "RGB"
            ? ((c = 0), (d = l), (p = l * 2))
            : s === "RBG" && ((c = 0), (p = l), (d = l * 2));
        for (let b = 0; b < i; b++)
          for (let A = 0; A < r; A++) {
            let m = (e.data[c++] - f[0]) * u[0],
              w = (e.data[d++] - f[1]) * u[1],
              O = (e.data[p++] - f[2]) * u[2],
              g = h === -1 ? 255 : (e.data[h++] - f[3]) * u[3];
            ((o.fillStyle = "rgba(" + m + "," + w + "," + O + "," + g + ")"), o.fillRect(A, b, 1, 1));
          }
        if ("toDataURL" in n) return n.toDataURL();
        throw new Error("toDataURL is not supported");
      } else throw new Error("Can not access image data");
    }),
      (It = (e, t) => {
        let n =
            typeof document < "u"
              ? document.createElement("canvas").getContext("2d")
              : new OffscreenCanvas(1, 1).getContext("2d"),
          o;
        if (n != null) {
          let r, i, s;
          t?.tensorLayout !== void 0 && t.tensorLayout === "NHWC"
            ? ((r = e.dims[2]), (i = e.dims[1]), (s = e.dims[3]))
            : ((r = e.dims[3]), (i = e.dims[2]), (s = e.dims[1]));
          let a = t !== void 0 && t.format !== void 0 ? t.format : "RGB",
            u = t?.norm,
            f,
            l;
          (u === void 0 || u.mean === void 0
            ? (f = [255, 255, 255, 255])
            : typeof u.mean == "number"
              ? (f = [u.mean, u.mean, u.mean, u.mean])
              : ((f = [u.mean[0], u.mean[1], u.mean[2], 255]), u.mean[3] !== void 0 && (f[3] = u.mean[3])),
            u === void 0 || u.bias === void 0
              ? (l = [0, 0, 0, 0])
              : typeof u.bias == "number"
                ? (l = [u.bias, u.bias, u.bias, u.bias])
                : ((l = [u.bias[0], u.bias[1], u.bias[2], 0]), u.bias[3] !== void 0 && (l[3] = u.bias[3])));
          let c = i * r;
          if (
            t !== void 0 &&
            ((t.format !== void 0 && s === 4 && t.format !== "RGBA") ||
              (s === 3 && t.format !== "RGB" && t.format !== "BGR"))
          )
            throw new Error("Tensor format doesn't match input tensor dims");
          let d = 4,
            p = 0,
            h = 1,
            b = 2,
            A = 3,
            m = 0,
            w = c,
            O = c * 2,
            g = -1;
          (a === "RGBA"
            ? ((m = 0), (w = c), (O = c * 2), (g = c * 3))
            : a === "RGB"
              ? ((m = 0), (w = c), (O = c * 2))
              : a === "RBG" && ((m = 0), (O = c), (w = c * 2)),
            (o = n.createImageData(r, i)));
          for (let T = 0; T < i * r; p += d, h += d, b += d, A += d, T++)
            ((o.data[p] = (e.data[m++] - l[0]) * f[0]),
              (o.data[h] = (e.data[w++] - l[1]) * f[1]),
              (o.data[b] = (e.data[O++] - l[2]) * f[2]),
              (o.data[A] = g === -1 ? 255 : (e.data[g++] - l[3]) * f[3]));
        } else throw new Error("Can not access image data");
        return o;
      }));
  });
var Xe,
  Bt,
  Ot,
  Lt,
  Pt,
  Dt,
  _t = E(() => {
    "use strict";
    Te();
    ((Xe = (e, t) => {
      if (e === void 0) throw new Error("Image buffer must be defined");
      if (t.height === void 0 || t.width === void 0) throw new Error("Image height and width must be defined");
      if (t.tensorLayout === "NHWC") throw new Error("NHWC Tensor layout is not supported yet");
      let { height: n, width: o } = t,
        r = t.norm ?? { mean: 255, bias: 0 },
        i,
        s;
      (typeof r.mean == "number"
        ? (i = [r.mean, r.mean, r.mean, r.mean])
        : (i = [r.mean[0], r.mean[1], r.mean[2], r.mean[3] ?? 255]),
        typeof r.bias == "number"
          ? (s = [r.bias, r.bias, r.bias, r.bias])
          : (s = [r.bias[0], r.bias[1], r.bias[2], r.bias[3] ?? 0]));
      let a = t.format !== void 0 ? t.format : "RGBA",
        u = t.tensorFormat !== void 0 && t.tensorFormat !== void 0 ? t.tensorFormat : "RGB",
        f = n * o,
        l = u === "RGBA" ? new Float32Array(f * 4) : new Float32Array(f * 3),
        c = 4,
        d = 0,
        p = 1,
        h = 2,
        b = 3,
        A = 0,
        m = f,
        w = f * 2,
        O = -1;
      (a === "RGB" && ((c = 3), (d = 0), (p = 1), (h = 2), (b = -1)),
        u === "RGBA"
          ? (O = f * 3)
          : u === "RBG"
            ? ((A = 0), (w = f), (m = f * 2))
            : u === "BGR" && ((w = 0), (m = f), (A = f * 2)));
      for (let T = 0; T < f; T++, d += c, h += c, p += c, b += c)
        ((l[A++] = (e[d] + s[0]) / i[0]),
          (l[m++] = (e[p] + s[1]) / i[1]),
          (l[w++] = (e[h] + s[2]) / i[2]),
          O !== -1 && b !== -1 && (l[O++] = (e[b] + s[3]) / i[3]));
      return u === "RGBA" ? new v("float32", l, [1, 4, n, o]) : new v("float32", l, [1, 3, n, o]);
    }),
      (Bt = async (e, t) => {
        let n = typeof HTMLImageElement < "u" && e instanceof HTMLImageElement,
          o = typeof ImageData < "u" && e instanceof ImageData,
          r = typeof ImageBitmap < "u" && e instanceof ImageBitmap,
          i = typeof e == "string",
          s,
          a = t ?? {},
          u = () => {
            if (typeof document < "u") return document.createElement("canvas");
            if (typeof OffscreenCanvas < "u") return new OffscreenCanvas(1, 1);
            throw new Error("Canvas is not supported");
          },
          f = (l) =>
            (typeof HTMLCanvasElement < "u" && l instanceof HTMLCanvasElement) || l instanceof OffscreenCanvas
              ? l.getContext("2d")
              : null;
        if (n) {
          let l = u();
          ((l.width = e.width), (l.height = e.height));
          let c = f(l);
          if (c != null) {
            let d = e.height,
              p = e.width;
            if (
              (t !== void 0 &&
                t.resizedHeight !== void 0 &&
                t.resizedWidth !== void 0 &&
                ((d = t.resizedHeight), (p = t.resizedWidth)),
              t !== void 0)
            ) {
              if (((a = t), t.tensorFormat !== void 0))
                throw new Error("Image input config format must be RGBA for HTMLImageElement");
              ((a.tensorFormat = "RGBA"), (a.height = d), (a.width = p));
            } else ((a.tensorFormat = "RGBA"), (a.height = d), (a.width = p));
            (c.drawImage(e, 0, 0), (s = c.getImageData(0, 0, p, d).data));
          } else throw new Error("Can not access image data");
        } else if (o) {
          let l, c;
          if (
            (t !== void 0 && t.resizedWidth !== void 0 && t.resizedHeight !== void 0
              ? ((l = t.resizedHeight), (c = t.resizedWidth))
              : ((l = e.height), (c = e.width)),
            t !== void 0 && (a = t),
            (a.format = "RGBA"),
            (a.height = l),
            (a.width = c),
            t !== void 0)
          ) {
            let d = u();
            ((d.width = c), (d.height = l));
            let p = f(d);
            if (p != null) (p.putImageData(e, 0, 0), (s = p.getImageData(0, 0, c, l).data));
            else throw new Error("Can not access image data");
          } else s = e.data;
        } else if (r) {
          if (t === void 0) throw new Error("Please provide image config with format for Imagebitmap");
          let l = u();
          ((l.width = e.width), (l.height = e.height));
          let c = f(l);
          if (c != null) {
            let d = e.height,
              p = e.width;
            return (
              c.drawImage(e, 0, 0, p, d),
              (s = c.getImageData(0, 0, p, d).data),
              (a.height = d),
              (a.width = p),
              Xe(s, a)
            );
          } else throw new Error("Can not access image data");
        } else {
          if (i)
            return new Promise((l, c) => {
              let d = u(),
                p = f(d);
              if (!e || !p) return c();
              let h = new Image();
              ((h.crossOrigin = "Anonymous"),
                (h.src = e),
                (h.onload = () => {
                  ((d.width = h.width), (d.height = h.height), p.drawImage(h, 0, 0, d.width, d.height));
                  let b = p.getImageData(0, 0, d.width, d.height);
                  ((a.height = d.height), (a.width = d.width), l(Xe(b.data, a)));
                }));
            });
          throw new Error("Input data provided is not supported - aborted tensor creation");
        }
        if (s !== void 0) return Xe(s, a);
        throw new Error("Input data provided is not supported - aborted tensor creation");
      }),
      (Ot = (e, t) => {
        let { width: n, height: o, download: r, dispose: i } = t,
          s = [1, o, n, 4];
        return new v({ location: "texture", type: "float32", texture: e, dims: s, download: r, dispose: i });
      }),
      (Lt = (e, t) => {
        let { dataType: n, dims: o, download: r, dispose: i } = t;
        return new v({ location: "gpu-buffer", type: n ?? "float32", gpuBuffer: e, dims: o, download: r, dispose: i });
      }),
      (Pt = (e, t) => {
        let { dataType: n, dims: o, download: r, dispose: i } = t;
        return new v({ location: "ml-tensor", type: n ?? "float32", mlTensor: e, dims: o, download: r, dispose: i });
      }),
      (Dt = (e, t, n) => new v({ location: "cpu-pinned", type: e, data: t, dims: n ?? [t.length] })));
  });
var Y,
  me,
  Ut,
  xt,
  vt = E(() => {
    "use strict";
    ((Y = new Map([
      ["float32", Float32Array],
      ["uint8", Uint8Array],
      ["int8", Int8Array],
      ["uint16", Uint16Array],
      ["int16", Int16Array],
      ["int32", Int32Array],
      ["bool", Uint8Array],
      ["float64", Float64Array],
      ["uint32", Uint32Array],
      ["int4", Uint8Array],
      ["uint4", Uint8Array],
    ])),
      (me = new Map([
        [Float32Array, "float32"],
        [Uint8Array, "uint8"],
        [Int8Array, "int8"],
        [Uint16Array, "uint16"],
        [Int16Array, "int16"],
        [Int32Array, "int32"],
        [Float64Array, "float64"],
        [Uint32Array, "uint32"],
      ])),
      (Ut = !1),
      (xt = () => {
        if (!Ut) {
          Ut = !0;
          let e = typeof BigInt64Array < "u" && BigInt64Array.from,
            t = typeof BigUint64Array < "u" && BigUint64Array.from,
            n = globalThis.Float16Array,
            o = typeof n < "u" && n.from;
          (e && (Y.set("int64", BigInt64Array), me.set(BigInt64Array, "int64")),
            t && (Y.set("uint64", BigUint64Array), me.set(BigUint64Array, "uint64")),
            o ? (Y.set("float16", n), me.set(n, "float16")) : Y.set("float16", Uint16Array));
        }
      }));
  });
var Ct,
  Mt,
  Rt = E(() => {
    "use strict";
    Te();
    ((Ct = (e) => {
      let t = 1;
      for (let n = 0; n < e.length; n++) {
        let o = e[n];
        if (typeof o != "number" || !Number.isSafeInteger(o))
          throw new TypeError(`dims[${n}] must be an integer, got: ${o}`);
        if (o < 0) throw new RangeError(`dims[${n}] must be a non-negative integer, got: ${o}`);
        t *= o;
      }
      return t;
    }),
      (Mt = (e, t) => {
        switch (e.location) {
          case "cpu":
            return new v(e.type, e.data, t);
          case "cpu-pinned":
            return new v({ location: "cpu-pinned", data: e.data, type: e.type, dims: t });
          case "texture":
            return new v({ location: "texture", texture: e.texture, type: e.type, dims: t });
          case "gpu-buffer":
            return new v({ location: "gpu-buffer", gpuBuffer: e.gpuBuffer, type: e.type, dims: t });
          case "ml-tensor":
            return new v({ location: "ml-tensor", mlTensor: e.mlTensor, type: e.type, dims: t });
          default:
            throw new Error(`tensorReshape: tensor location ${e.location} is not supported`);
        }
      }));
  });
var v,
  Te = E(() => {
    "use strict";
    At();
    _t();
    vt();
    Rt();
    v = class {
      constructor(t, n, o) {
        xt();
        let r, i;
        if (typeof t == "object" && "location" in t)
          switch (((this.dataLocation = t.location), (r = t.type), (i = t.dims), t.location)) {
            case "cpu-pinned": {
              let a = Y.get(r);
              if (!a) throw new TypeError(`unsupported type "${r}" to create tensor from pinned buffer`);
              if (!(t.data instanceof a)) throw new TypeError(`buffer should be of type ${a.name}`);
              this.cpuData = t.data;
              break;
            }
            case "texture": {
              if (r !== "float32") throw new TypeError(`unsupported type "${r}" to create tensor from texture`);
              ((this.gpuTextureData = t.texture), (this.downloader = t.download), (this.disposer = t.dispose));
              break;
            }
            case "gpu-buffer": {
              if (
                r !== "float32" &&
                r !== "float16" &&
                r !== "int32" &&
                r !== "int64" &&
                r !== "uint32" &&
                r !== "uint8" &&
                r !== "bool" &&
                r !== "uint4" &&
                r !== "int4"
              )
                throw new TypeError(`unsupported type "${r}" to create tensor from gpu buffer`);
              ((this.gpuBufferData = t.gpuBuffer), (this.downloader = t.download), (this.disposer = t.dispose));
              break;
            }
            case "ml-tensor": {
              if (
                r !== "float32" &&
                r !== "float16" &&
                r !== "int32" &&
                r !== "int64" &&
                r !== "uint32" &&
                r !== "uint64" &&
                r !== "int8" &&
                r !== "uint8" &&
                r !== "bool" &&
                r !== "uint4" &&
                r !== "int4"
              )
                throw new TypeError(`unsupported type "${r}" to create tensor from MLTensor`);
              ((this.mlTensorData = t.mlTensor), (this.downloader = t.download), (this.disposer = t.dispose));
              break;
            }
            default:
              throw new Error(`Tensor constructor: unsupported location '${this.dataLocation}'`);
          }
        else {
          let a, u;
          if (typeof t == "string")
            if (((r = t), (u = o), t === "string")) {
              if (!Array.isArray(n)) throw new TypeError("A string tensor's data must be a string array.");
              a = n;
            } else {
              let f = Y.get(t);
              if (f === void 0) throw new TypeError(`Unsupported tensor type: ${t}.`);
              if (Array.isArray(n)) {
                if ((t === "float16" && f === Uint16Array) || t === "uint4" || t === "int4")
                  throw new TypeError(
                    `Creating a ${t} tensor from number array is not supported. Please use ${f.name} as data.`,
                  );
                t === "uint64" || t === "int64" ? (a = f.from(n, BigInt)) : (a = f.from(n));
              } else if (n instanceof f) a = n;
              else if (n instanceof Uint8ClampedArray)
                if (t === "uint8") a = Uint8Array.from(n);
                else throw new TypeError("A Uint8ClampedArray tensor's data must be type of uint8");
              else if (t === "float16" && n instanceof Uint16Array && f !== Uint16Array)
                a = new globalThis.Float16Array(n.buffer, n.byteOffset, n.length);
              else throw new TypeError(`A ${r} tensor's data must be type of ${f}`);
            }
          else if (((u = n), Array.isArray(t))) {
            if (t.length === 0) throw new TypeError("Tensor type cannot be inferred from an empty array.");
            let f = typeof t[0];
            if (f === "string") ((r = "string"), (a = t));
            else if (f === "boolean") ((r = "bool"), (a = Uint8Array.from(t)));
            else throw new TypeError(`Invalid element type of data array: ${f}.`);
          } else if (t instanceof Uint8ClampedArray) ((r = "uint8"), (a = Uint8Array.from(t)));
          else {
            let f = me.get(t.constructor);
            if (f === void 0) throw new TypeError(`Unsupported type for tensor data: ${t.constructor}.`);
            ((r = f), (a = t));
          }
          if (u === void 0) u = [a.length];
          else if (!Array.isArray(u)) throw new TypeError("A tensor's dims must be a number array");
          ((i = u), (this.cpuData = a), (this.dataLocation = "cpu"));
        }
        let s = Ct(i);
        if (
          this.cpuData &&
          s !== this.cpuData.length &&
          !((r === "uint4" || r === "int4") && Math.ceil(s / 2) === this.cpuData.length)
        )
          throw new Error(`Tensor's size(${s}) does not match data length(${this.cpuData.length}).`);
        ((this.type = r), (this.dims = i), (this.size = s));
      }
      static async fromImage(t, n) {
        return Bt(t, n);
      }
      static fromTexture(t, n) {
        return Ot(t, n);
      }
      static fromGpuBuffer(t, n) {
        return Lt(t, n);
      }
      static fromMLTensor(t, n) {
        return Pt(t, n);
      }
      static fromPinnedBuffer(t, n, o) {
        return Dt(t, n, o);
      }
      toDataURL(t) {
        return Tt(this, t);
      }
      toImageData(t) {
        return It(this, t);
      }
      get data() {
        if ((this.ensureValid(), !this.cpuData))
          throw new Error(
            "The data is not on CPU. Use `getData()` to download GPU data to CPU, or use `texture` or `gpuBuffer` property to access the GPU data directly.",
          );
        return this.cpuData;
      }
      get location() {
        return this.dataLocation;
      }
      get texture() {
        if ((this.ensureValid(), !this.gpuTextureData)) throw new Error("The data is not stored as a WebGL texture.");
        return this.gpuTextureData;
      }
      get gpuBuffer() {
        if ((this.ensureValid(), !this.gpuBufferData)) throw new Error("The data is not stored as a WebGPU buffer.");
        return this.gpuBufferData;
      }
      get mlTensor() {
        if ((this.ensureValid(), !this.mlTensorData)) throw new Error("The data is not stored as a WebNN MLTensor.");
        return this.mlTensorData;
      }
      async getData(t) {
        switch ((this.ensureValid(), this.dataLocation)) {
          case "cpu":
          case "cpu-pinned":
            return this.data;
          case "texture":
          case "gpu-buffer":
          case "ml-tensor": {
            if (!this.downloader)
              throw new Error("The current tensor is not created with a specified data downloader.");
            if (this.isDownloading) throw new Error("The current tensor is being downloaded.");
            try {
              this.isDownloading = !0;
              let n = await this.downloader();
              return (
                (this.downloader = void 0),
                (this.dataLocation = "cpu"),
                (this.cpuData = n),
                t && this.disposer && (this.disposer(), (this.disposer = void 0)),
                n
              );
            } finally {
              this.isDownloading = !1;
            }
          }
          default:
            throw new Error(`cannot get data from location: ${this.dataLocation}`);
        }
      }
      dispose() {
        if (this.isDownloading) throw new Error("The current tensor is being downloaded.");
        (this.disposer && (this.disposer(), (this.disposer = void 0)),
          (this.cpuData = void 0),
          (this.gpuTextureData = void 0),
          (this.gpuBufferData = void 0),
          (this.mlTensorData = void 0),
          (this.downloader = void 0),
          (this.isDownloading = void 0),
          (this.dataLocation = "none"));
      }
      ensureValid() {
        if (this.dataLocation === "none") throw new Error("The tensor is disposed.");
      }
      reshape(t) {
        if ((this.ensureValid(), this.downloader || this.disposer))
          throw new Error("Cannot reshape a tensor that owns GPU resource.");
        return Mt(this, t);
      }
    };
  });
var G,
  Ke = E(() => {
    "use strict";
    Te();
    G = v;
  });
var Nt,
  Ft,
  Z,
  X,
  K,
  Q,
  Qe = E(() => {
    "use strict";
    Ze();
    ((Nt = (e, t) => {
      (typeof D.trace > "u" ? !D.wasm.trace : !D.trace) || console.timeStamp(`${e}::ORT::${t}`);
    }),
      (Ft = (e, t) => {
        let n = new Error().stack?.split(/\r\n|\r|\n/g) || [],
          o = !1;
        for (let r = 0; r < n.length; r++) {
          if (o && !n[r].includes("TRACE_FUNC")) {
            let i = `FUNC_${e}::${n[r].trim().split(" ")[1]}`;
            (t && (i += `::${t}`), Nt("CPU", i));
            return;
          }
          n[r].includes("TRACE_FUNC") && (o = !0);
        }
      }),
      (Z = (e) => {
        (typeof D.trace > "u" ? !D.wasm.trace : !D.trace) || Ft("BEGIN", e);
      }),
      (X = (e) => {
        (typeof D.trace > "u" ? !D.wasm.trace : !D.trace) || Ft("END", e);
      }),
      (K = (e) => {
        (typeof D.trace > "u" ? !D.wasm.trace : !D.trace) || console.time(`ORT::${e}`);
      }),
      (Q = (e) => {
        (typeof D.trace > "u" ? !D.wasm.trace : !D.trace) || console.timeEnd(`ORT::${e}`);
      }));
  });
var Ie,
  kt = E(() => {
    "use strict";
    Ye();
    Ke();
    Qe();
    Ie = class e {
      constructor(t) {
        this.handler = t;
      }
      async run(t, n, o) {
        (Z(), K("InferenceSession.run"));
        let r = {},
          i = {};
        if (typeof t != "object" || t === null || t instanceof G || Array.isArray(t))
          throw new TypeError(
            "'feeds' must be an object that use input names as keys and OnnxValue as corresponding values.",
          );
        let s = !0;
        if (typeof n == "object") {
          if (n === null) throw new TypeError("Unexpected argument[1]: cannot be null.");
          if (n instanceof G) throw new TypeError("'fetches' cannot be a Tensor");
          if (Array.isArray(n)) {
            if (n.length === 0) throw new TypeError("'fetches' cannot be an empty array.");
            s = !1;
            for (let f of n) {
              if (typeof f != "string") throw new TypeError("'fetches' must be a string array or an object.");
              if (this.outputNames.indexOf(f) === -1)
                throw new RangeError(`'fetches' contains invalid output name: ${f}.`);
              r[f] = null;
            }
            if (typeof o == "object" && o !== null) i = o;
            else if (typeof o < "u") throw new TypeError("'options' must be an object.");
          } else {
            let f = !1,
              l = Object.getOwnPropertyNames(n);
            for (let c of this.outputNames)
              if (l.indexOf(c) !== -1) {
                let d = n[c];
                (d === null || d instanceof G) && ((f = !0), (s = !1), (r[c] = d));
              }
            if (f) {
              if (typeof o == "object" && o !== null) i = o;
              else if (typeof o < "u") throw new TypeError("'options' must be an object.");
            } else i = n;
          }
        } else if (typeof n < "u") throw new TypeError("Unexpected argument[1]: must be 'fetches' or 'options'.");
        for (let f of this.inputNames) if (typeof t[f] > "u") throw new Error(`input '${f}' is missing in 'feeds'.`);
        if (s) for (let f of this.outputNames) r[f] = null;
        let a = await this.handler.run(t, r, i),
          u = {};
        for (let f in a)
          if (Object.hasOwnProperty.call(a, f)) {
            let l = a[f];
            l instanceof G ? (u[f] = l) : (u[f] = new G(l.type, l.data, l.dims));
          }
        return (Q("InferenceSession.run"), X(), u);
      }
      async release() {
        return this.handler.dispose();
      }
      static async create(t, n, o, r) {
        (Z(), K("InferenceSession.create"));
        let i,
          s = {};
        if (typeof t == "string") {
          if (((i = t), typeof n == "object" && n !== null)) s = n;
          else if (typeof n < "u") throw new TypeError("'options' must be an object.");
        } else if (t instanceof Uint8Array) {
          if (((i = t), typeof n == "object" && n !== null)) s = n;
          else if (typeof n < "u") throw new TypeError("'options' must be an object.");
        } else if (t instanceof ArrayBuffer || (typeof SharedArrayBuffer < "u" && t instanceof SharedArrayBuffer)) {
          let l = t,
            c = 0,
            d = t.byteLength;
          if (typeof n == "object" && n !== null) s = n;
          else if (typeof n == "number") {
            if (((c = n), !Number.isSafeInteger(c))) throw new RangeError("'byteOffset' must be an integer.");
            if (c < 0 || c >= l.byteLength) throw new RangeError(`'byteOffset' is out of range [0, ${l.byteLength}).`);
            if (((d = t.byteLength - c), typeof o == "number")) {
              if (((d = o), !Number.isSafeInteger(d))) throw new RangeError("'byteLength' must be an integer.");
              if (d <= 0 || c + d > l.byteLength)
                throw new RangeError(`'byteLength' is out of range (0, ${l.byteLength - c}].`);
              if (typeof r == "object" && r !== null) s = r;
              else if (typeof r < "u") throw new TypeError("'options' must be an object.");
            } else if (typeof o < "u") throw new TypeError("'byteLength' must be a number.");
          } else if (typeof n < "u") throw new TypeError("'options' must be an object.");
          i = new Uint8Array(l, c, d);
        } else throw new TypeError("Unexpected argument[0]: must be 'path' or 'buffer'.");
        let [a, u] = await ht(s),
          f = await a.createInferenceSessionHandler(i, u);
        return (Q("InferenceSession.create"), X(), new e(f));
      }
      startProfiling() {
        this.handler.startProfiling();
      }
      endProfiling() {
        this.handler.endProfiling();
      }
      get inputNames() {
        return this.handler.inputNames;
      }
      get outputNames() {
        return this.handler.outputNames;
      }
      get inputMetadata() {
        return this.handler.inputMetadata;
      }
      get outputMetadata() {
        return this.handler.outputMetadata;
      }
    };
  });
var Un,
  Wt = E(() => {
    "use strict";
    kt();
    Un = Ie;
  });
var Gt = E(() => {
  "use strict";
});
var $t = E(() => {
  "use strict";
});
var zt = E(() => {
  "use strict";
});
var Ht = E(() => {
  "use strict";
});
var et = {};
qe(et, {
  InferenceSession: () => Un,
  TRACE: () => Nt,
  TRACE_EVENT_BEGIN: () => K,
  TRACE_EVENT_END: () => Q,
  TRACE_FUNC_BEGIN: () => Z,
  TRACE_FUNC_END: () => X,
  Tensor: () => G,
  env: () => B,
  registerBackend: () => pe,
});
var J = E(() => {
  "use strict";
  bt();
  St();
  Wt();
  Ke();
  Gt();
  $t();
  Qe();
  zt();
  Ht();
});
var Ae = E(() => {
  "use strict";
});
var qt = {};
qe(qt, { default: () => xn });
var Vt,
  Jt,
  xn,
  Yt = E(() => {
    "use strict";
    tt();
    ee();
    Be();
    ((Vt = "ort-wasm-proxy-worker"), (Jt = globalThis.self?.name === Vt));
    Jt &&
      (self.onmessage = (e) => {
        let { type: t, in: n } = e.data;
        try {
          switch (t) {
            case "init-wasm":
              Oe(n.wasm).then(
                () => {
                  Le(n).then(
                    () => {
                      postMessage({ type: t });
                    },
                    (o) => {
                      postMessage({ type: t, err: o });
                    },
                  );
                },
                (o) => {
                  postMessage({ type: t, err: o });
                },
              );
              break;
            case "init-ep": {
              let { epName: o, env: r } = n;
              Pe(r, o).then(
                () => {
                  postMessage({ type: t });
                },
                (i) => {
                  postMessage({ type: t, err: i });
                },
              );
              break;
            }
            case "copy-from": {
              let { buffer: o } = n,
                r = we(o);
              postMessage({ type: t, out: r });
              break;
            }
            case "create": {
              let { model: o, options: r } = n;
              De(o, r).then(
                (i) => {
                  postMessage({ type: t, out: i });
                },
                (i) => {
                  postMessage({ type: t, err: i });
                },
              );
              break;
            }
            case "release":
              (_e(n), postMessage({ type: t }));
              break;
            case "run": {
              let { sessionId: o, inputIndices: r, inputs: i, outputIndices: s, options: a } = n;
              Ue(o, r, i, s, new Array(s.length).fill(null), a).then(
                (u) => {
                  u.some((f) => f[3] !== "cpu")
                    ? postMessage({ type: t, err: "Proxy does not support non-cpu tensor location." })
                    : postMessage({ type: t, out: u }, ve([...i, ...u]));
                },
                (u) => {
                  postMessage({ type: t, err: u });
                },
              );
              break;
            }
            case "end-profiling":
              (xe(n), postMessage({ type: t }));
              break;
            default:
          }
        } catch (o) {
          postMessage({ type: t, err: o });
        }
      });
    xn = Jt ? null : (e) => new Worker(e ?? R, { type: "module", name: Vt });
  });
var Kt,
  vn,
  Cn,
  R,
  Ce,
  nt,
  Mn,
  Rn,
  Qt,
  Nn,
  Zt,
  en,
  Xt,
  tn,
  Be = E(() => {
    "use strict";
    Ae();
    ((Kt = typeof location > "u" ? void 0 : location.origin),
      (vn = import.meta.url > "file:" && import.meta.url < "file;"),
      (Cn = () => {
        if (!!1) {
          if (vn) {
            let e = URL;
            return new URL(new e("ort.wasm.min.mjs", import.meta.url).href, Kt).href;
          }
          return import.meta.url;
        }
      }),
      (R = Cn()),
      (Ce = () => {
        if (R && !R.startsWith("blob:")) return R.substring(0, R.lastIndexOf("/") + 1);
      }),
      (nt = (e, t) => {
        try {
          let n = t ?? R;
          return (n ? new URL(e, n) : new URL(e)).origin === Kt;
        } catch {
          return !1;
        }
      }),
      (Mn = (e, t) => {
        let n = t ?? R;
        try {
          return (n ? new URL(e, n) : new URL(e)).href;
        } catch {
          return;
        }
      }),
      (Rn = (e, t) => `${t ?? "./"}${e}`),
      (Qt = async (e) => {
        let n = await (await fetch(e, { credentials: "same-origin" })).blob();
        return URL.createObjectURL(n);
      }),
      (Nn = async (e) => (await import(/*webpackIgnore:true*/ /*@vite-ignore*/ e)).default),
      (Zt = (Yt(), wt(qt)).default),
      (en = async () => {
        if (!R) throw new Error("Failed to load proxy worker: cannot determine the script source URL.");
        if (nt(R)) return [void 0, Zt()];
        let e = await Qt(R);
        return [e, Zt(e)];
      }),
      (Xt = void 0),
      (tn = async (e, t, n, o) => {
        let r = Xt && !(e || t);
        if (r)
          if (R) r = nt(R) || (o && !n);
          else if (o && !n) r = !0;
          else throw new Error("cannot determine the script source URL.");
        if (r) return [void 0, Xt];
        {
          let i = "ort-wasm-simd-threaded.mjs",
            s = e ?? Mn(i, t),
            a = !!1 && n && s && !nt(s, t),
            u = a ? await Qt(s) : (s ?? Rn(i, t));
          return [a ? u : void 0, await Nn(u)];
        }
      }));
  });
var rt,
  ot,
  Me,
  nn,
  Fn,
  kn,
  Wn,
  Oe,
  I,
  ee = E(() => {
    "use strict";
    Be();
    ((ot = !1),
      (Me = !1),
      (nn = !1),
      (Fn = () => {
        if (typeof SharedArrayBuffer > "u") return !1;
        try {
          return (
            typeof MessageChannel < "u" && new MessageChannel().port1.postMessage(new SharedArrayBuffer(1)),
            WebAssembly.validate(
              new Uint8Array([
                0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 5, 4, 1, 3, 1, 1, 10, 11, 1, 9, 0, 65, 0,
                254, 16, 2, 0, 26, 11,
              ]),
            )
          );
        } catch {
          return !1;
        }
      }),
      (kn = () => {
        try {
          return WebAssembly.validate(
            new Uint8Array([
              0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 10, 30, 1, 28, 0, 65, 0, 253, 15, 253, 12, 0,
              0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 253, 186, 1, 26, 11,
            ]),
          );
        } catch {
          return !1;
        }
      }),
      (Wn = () => {
        try {
          return WebAssembly.validate(
            new Uint8Array([
              0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 19, 1, 17, 0, 65, 1, 253, 15, 65, 2,
              253, 15, 65, 3, 253, 15, 253, 147, 2, 11,
            ]),
          );
        } catch {
          return !1;
        }
      }),
      (Oe = async (e) => {
        if (ot) return Promise.resolve();
        if (Me) throw new Error("multiple calls to 'initializeWebAssembly()' detected.");
        if (nn) throw new Error("previous call to 'initializeWebAssembly()' failed.");
        Me = !0;
        let t = e.initTimeout,
          n = e.numThreads;
        if (e.simd !== !1) {
          if (e.simd === "relaxed") {
            if (!Wn()) throw new Error("Relaxed WebAssembly SIMD is not supported in the current environment.");
          } else if (!kn()) throw new Error("WebAssembly SIMD is not supported in the current environment.");
        }
        let o = Fn();
        n > 1 &&
          !o &&
          (typeof self < "u" &&
            !self.crossOriginIsolated &&
            console.warn(
              "env.wasm.numThreads is set to " +
                n +
                ", but this will not work unless you enable crossOriginIsolated mode. See https://web.dev/cross-origin-isolation-guide/ for more info.",
            ),
          console.warn(
            "WebAssembly multi-threading is not supported in the current environment. Falling back to single-threading.",
          ),
          (e.numThreads = n = 1));
        let r = e.wasmPaths,
          i = typeof r == "string" ? r : void 0,
          s = r?.mjs,
          a = s?.href ?? s,
          u = r?.wasm,
          f = u?.href ?? u,
          l = e.wasmBinary,
          [c, d] = await tn(a, i, n > 1, !!l || !!f),
          p = !1,
          h = [];
        if (
          (t > 0 &&
            h.push(
              new Promise((b) => {
                setTimeout(() => {
                  ((p = !0), b());
                }, t);
              }),
            ),
          h.push(
            new Promise((b, A) => {
              let m = { numThreads: n };
              if (l) ((m.wasmBinary = l), (m.locateFile = (w) => w));
              else if (f || i) m.locateFile = (w) => f ?? i + w;
              else if (a && a.indexOf("blob:") !== 0) m.locateFile = (w) => new URL(w, a).href;
              else if (c) {
                let w = Ce();
                w && (m.locateFile = (O) => w + O);
              }
              d(m).then(
                (w) => {
                  ((Me = !1), (ot = !0), (rt = w), b(), c && URL.revokeObjectURL(c));
                },
                (w) => {
                  ((Me = !1), (nn = !0), A(w));
                },
              );
            }),
          ),
          await Promise.race(h),
          p)
        )
          throw new Error(`WebAssembly backend initializing failed due to timeout: ${t}ms`);
      }),
      (I = () => {
        if (ot && rt) return rt;
        throw new Error("WebAssembly is not initialized yet.");
      }));
  });
var N,
  he,
  S,
  Re = E(() => {
    "use strict";
    ee();
    ((N = (e, t) => {
      let n = I(),
        o = n.lengthBytesUTF8(e) + 1,
        r = n._malloc(o);
      return (n.stringToUTF8(e, r, o), t.push(r), r);
    }),
      (he = (e, t, n, o) => {
        if (typeof e == "object" && e !== null) {
          if (n.has(e)) throw new Error("Circular reference in options");
          n.add(e);
        }
        Object.entries(e).forEach(([r, i]) => {
          let s = t ? t + r : r;
          if (typeof i == "object") he(i, s + ".", n, o);
          else if (typeof i == "string" || typeof i == "number") o(s, i.toString());
          else if (typeof i == "boolean") o(s, i ? "1" : "0");
          else throw new Error(`Can't handle extra config type: ${typeof i}`);
        });
      }),
      (S = (e) => {
        let t = I(),
          n = t.stackSave();
        try {
          let o = t.PTR_SIZE,
            r = t.stackAlloc(2 * o);
          t._OrtGetLastError(r, r + o);
          let i = Number(t.getValue(r, o === 4 ? "i32" : "i64")),
            s = t.getValue(r + o, "*"),
            a = s ? t.UTF8ToString(s) : "";
          throw new Error(`${e} ERROR_CODE: ${i}, ERROR_MESSAGE: ${a}`);
        } finally {
          t.stackRestore(n);
        }
      }));
  });
var rn,
  on = E(() => {
    "use strict";
    ee();
    Re();
    rn = (e) => {
      let t = I(),
        n = 0,
        o = [],
        r = e || {};
      try {
        if (e?.logSeverityLevel === void 0) r.logSeverityLevel = 2;
        else if (
          typeof e.logSeverityLevel != "number" ||
          !Number.isInteger(e.logSeverityLevel) ||
          e.logSeverityLevel < 0 ||
          e.logSeverityLevel > 4
        )
          throw new Error(`log severity level is not valid: ${e.logSeverityLevel}`);
        if (e?.logVerbosityLevel === void 0) r.logVerbosityLevel = 0;
        else if (typeof e.logVerbosityLevel != "number" || !Number.isInteger(e.logVerbosityLevel))
          throw new Error(`log verbosity level is not valid: ${e.logVerbosityLevel}`);
        e?.terminate === void 0 && (r.terminate = !1);
        let i = 0;
        return (
          e?.tag !== void 0 && (i = N(e.tag, o)),
          (n = t._OrtCreateRunOptions(r.logSeverityLevel, r.logVerbosityLevel, !!r.terminate, i)),
          n === 0 && S("Can't create run options."),
          e?.extra !== void 0 &&
            he(e.extra, "", new WeakSet(), (s, a) => {
              let u = N(s, o),
                f = N(a, o);
              t._OrtAddRunConfigEntry(n, u, f) !== 0 && S(`Can't set a run config entry: ${s} - ${a}.`);
            }),
          [n, o]
        );
      } catch (i) {
        throw (n !== 0 && t._OrtReleaseRunOptions(n), o.forEach((s) => t._free(s)), i);
      }
    };
  });
var Gn,
  $n,
  zn,
  se,
  Hn,
  sn,
  an = E(() => {
    "use strict";
    ee();
    Re();
    ((Gn = (e) => {
      switch (e) {
        case "disabled":
          return 0;
        case "basic":
          return 1;
        case "extended":
          return 2;
        case "layout":
          return 3;
        case "all":
          return 99;
        default:
          throw new Error(`unsupported graph optimization level: ${e}`);
      }
    }),
      ($n = (e) => {
        switch (e) {
          case "sequential":
            return 0;
          case "parallel":
            return 1;
          default:
            throw new Error(`unsupported execution mode: ${e}`);
        }
      }),
      (zn = (e) => {
        (e.extra || (e.extra = {}), e.extra.session || (e.extra.session = {}));
        let t = e.extra.session;
        (t.use_ort_model_bytes_directly || (t.use_ort_model_bytes_directly = "1"),
          e.executionProviders &&
            e.executionProviders.some((n) => (typeof n == "string" ? n : n.name) === "webgpu") &&
            (e.enableMemPattern = !1));
      }),
      (se = (e, t, n, o) => {
        let r = N(t, o),
          i = N(n, o);
        I()._OrtAddSessionConfigEntry(e, r, i) !== 0 && S(`Can't set a session config entry: ${t} - ${n}.`);
      }),
      (Hn = async (e, t, n) => {
        let o = t.executionProviders;
        for (let r of o) {
          let i = typeof r == "string" ? r : r.name,
            s = [];
          switch (i) {
            case "webnn":
              if (
                ((i = "WEBNN"),
                se(e, "session.disable_quant_qdq", "1", n),
                se(e, "session.disable_qdq_constant_folding", "1", n),
                typeof r != "string")
              ) {
                let d = r?.deviceType;
                d && se(e, "deviceType", d, n);
              }
              break;
            case "webgpu":
              if (((i = "JS"), typeof r != "string")) {
                let c = r;
                if (c?.preferredLayout) {
                  if (c.preferredLayout !== "NCHW" && c.preferredLayout !== "NHWC")
                    throw new Error(`preferredLayout must be either 'NCHW' or 'NHWC': ${c.preferredLayout}`);
                  se(e, "preferredLayout", c.preferredLayout, n);
                }
              }
              break;
            case "wasm":
            case "cpu":
              continue;
            default:
              throw new Error(`not supported execution provider: ${i}`);
          }
          let a = N(i, n),
            u = s.length,
            f = 0,
            l = 0;
          if (u > 0) {
            ((f = I()._malloc(u * I().PTR_SIZE)), n.push(f), (l = I()._malloc(u * I().PTR_SIZE)), n.push(l));
            for (let c = 0; c < u; c++)
              (I().setValue(f + c * I().PTR_SIZE, s[c][0], "*"), I().setValue(l + c * I().PTR_SIZE, s[c][1], "*"));
          }
          (await I()._OrtAppendExecutionProvider(e, a, f, l, u)) !== 0 && S(`Can't append execution provider: ${i}.`);
        }
      }),
      (sn = async (e) => {
        let t = I(),
          n = 0,
          o = [],
          r = e || {};
        zn(r);
        try {
          let i = Gn(r.graphOptimizationLevel ?? "all"),
            s = $n(r.executionMode ?? "sequential"),
            a = typeof r.logId == "string" ? N(r.logId, o) : 0,
            u = r.logSeverityLevel ?? 2;
          if (!Number.isInteger(u) || u < 0 || u > 4) throw new Error(`log severity level is not valid: ${u}`);
          let f = r.logVerbosityLevel ?? 0;
          if (!Number.isInteger(f) || f < 0 || f > 4) throw new Error(`log verbosity level is not valid: ${f}`);
          let l = typeof r.optimizedModelFilePath == "string" ? N(r.optimizedModelFilePath, o) : 0;
          if (
            ((n = t._OrtCreateSessionOptions(
              i,
              !!r.enableCpuMemArena,
              !!r.enableMemPattern,
              s,
              !!r.enableProfiling,
              0,
              a,
              u,
              f,
              l,
            )),
            n === 0 && S("Can't create session options."),
            r.executionProviders && (await Hn(n, r, o)),
            r.enableGraphCapture !== void 0)
          ) {
            if (typeof r.enableGraphCapture != "boolean")
              throw new Error(`enableGraphCapture must be a boolean value: ${r.enableGraphCapture}`);
            se(n, "enableGraphCapture", r.enableGraphCapture.toString(), o);
          }
          if (r.freeDimensionOverrides)
            for (let [c, d] of Object.entries(r.freeDimensionOverrides)) {
              if (typeof c != "string") throw new Error(`free dimension override name must be a string: ${c}`);
              if (typeof d != "number" || !Number.isInteger(d) || d < 0)
                throw new Error(`free dimension override value must be a non-negative integer: ${d}`);
              let p = N(c, o);
              t._OrtAddFreeDimensionOverride(n, p, d) !== 0 && S(`Can't set a free dimension override: ${c} - ${d}.`);
            }
          return (
            r.extra !== void 0 &&
              he(r.extra, "", new WeakSet(), (c, d) => {
                se(n, c, d, o);
              }),
            [n, o]
          );
        } catch (i) {
          throw (
            n !== 0 && t._OrtReleaseSessionOptions(n) !== 0 && S("Can't release session options."),
            o.forEach((s) => t._free(s)),
            i
          );
        }
      }));
  });
var ie,
  Ne,
  ae,
  un,
  fn,
  Fe,
  ke,
  cn,
  st = E(() => {
    "use strict";
    ((ie = (e) => {
      switch (e) {
        case "int8":
          return 3;
        case "uint8":
          return 2;
        case "bool":
          return 9;
        case "int16":
          return 5;
        case "uint16":
          return 4;
        case "int32":
          return 6;
        case "uint32":
          return 12;
        case "float16":
          return 10;
        case "float32":
          return 1;
        case "float64":
          return 11;
        case "string":
          return 8;
        case "int64":
          return 7;
        case "uint64":
          return 13;
        case "int4":
          return 22;
        case "uint4":
          return 21;
        default:
          throw new Error(`unsupported data type: ${e}`);
      }
    }),
      (Ne = (e) => {
        switch (e) {
          case 3:
            return "int8";
          case 2:
            return "uint8";
          case 9:
            return "bool";
          case 5:
            return "int16";
          case 4:
            return "uint16";
          case 6:
            return "int32";
          case 12:
            return "uint32";
          case 10:
            return "float16";
          case 1:
            return "float32";
          case 11:
            return "float64";
          case 8:
            return "string";
          case 7:
            return "int64";
          case 13:
            return "uint64";
          case 22:
            return "int4";
          case 21:
            return "uint4";
          default:
            throw new Error(`unsupported data type: ${e}`);
        }
      }),
      (ae = (e, t) => {
        let n = [-1, 4, 1, 1, 2, 2, 4, 8, -1, 1, 2, 8, 4, 8, -1, -1, -1, -1, -1, -1, -1, 0.5, 0.5][e],
          o = typeof t == "number" ? t : t.reduce((r, i) => r * i, 1);
        return n > 0 ? Math.ceil(o * n) : void 0;
      }),
      (un = (e) => {
        switch (e) {
          case "float16":
            return typeof Float16Array < "u" ? Float16Array : Uint16Array;
          case "float32":
            return Float32Array;
          case "uint8":
            return Uint8Array;
          case "int8":
            return Int8Array;
          case "uint16":
            return Uint16Array;
          case "int16":
            return Int16Array;
          case "int32":
            return Int32Array;
          case "bool":
            return Uint8Array;
          case "float64":
            return Float64Array;
          case "uint32":
            return Uint32Array;
          case "int64":
            return BigInt64Array;
          case "uint64":
            return BigUint64Array;
          default:
            throw new Error(`unsupported type: ${e}`);
        }
      }),
      (fn = (e) => {
        switch (e) {
          case "verbose":
            return 0;
          case "info":
            return 1;
          case "warning":
            return 2;
          case "error":
            return 3;
          case "fatal":
            return 4;
          default:
            throw new Error(`unsupported logging level: ${e}`);
        }
      }),
      (Fe = (e) =>
        e === "float32" ||
        e === "float16" ||
        e === "int32" ||
        e === "int64" ||
        e === "uint32" ||
        e === "uint8" ||
        e === "bool" ||
        e === "uint4" ||
        e === "int4"),
      (ke = (e) =>
        e === "float32" ||
        e === "float16" ||
        e === "int32" ||
        e === "int64" ||
        e === "uint32" ||
        e === "uint64" ||
        e === "int8" ||
        e === "uint8" ||
        e === "bool" ||
        e === "uint4" ||
        e === "int4"),
      (cn = (e) => {
        switch (e) {
          case "none":
            return 0;
          case "cpu":
            return 1;
          case "cpu-pinned":
            return 2;
          case "texture":
            return 3;
          case "gpu-buffer":
            return 4;
          case "ml-tensor":
            return 5;
          default:
            throw new Error(`unsupported data location: ${e}`);
        }
      }));
  });
var be,
  it = E(() => {
    "use strict";
    Ae();
    be = async (e) => {
      if (typeof e == "string")
        if (!1)
          try {
            let { readFile: t } = Je("node:fs/promises");
            return new Uint8Array(await t(e));
          } catch (t) {
            if (t.code === "ERR_FS_FILE_TOO_LARGE") {
              let { createReadStream: n } = Je("node:fs"),
                o = n(e),
                r = [];
              for await (let i of o) r.push(i);
              return new Uint8Array(Buffer.concat(r));
            }
            throw t;
          }
        else {
          let t = await fetch(e);
          if (!t.ok) throw new Error(`failed to load external data file: ${e}`);
          let n = t.headers.get("Content-Length"),
            o = n ? parseInt(n, 10) : 0;
          if (o < 1073741824) return new Uint8Array(await t.arrayBuffer());
          {
            if (!t.body) throw new Error(`failed to load external data file: ${e}, no response body.`);
            let r = t.body.getReader(),
              i;
            try {
              i = new ArrayBuffer(o);
            } catch (a) {
              if (a instanceof RangeError) {
                let u = Math.ceil(o / 65536);
                i = new WebAssembly.Memory({ initial: u, maximum: u }).buffer;
              } else throw a;
            }
            let s = 0;
            for (;;) {
              let { done: a, value: u } = await r.read();
              if (a) break;
              let f = u.byteLength;
              (new Uint8Array(i, s, f).set(u), (s += f));
            }
            return new Uint8Array(i, 0, o);
          }
        }
      else
        return e instanceof Blob
          ? new Uint8Array(await e.arrayBuffer())
          : e instanceof Uint8Array
            ? e
            : new Uint8Array(e);
    };
  });
var jn,
  Le,
  Pe,
  ue,
  Vn,
  dn,
  we,
  De,
  _e,
  ln,
  Ue,
  xe,
  ve,
  tt = E(() => {
    "use strict";
    J();
    on();
    an();
    st();
    ee();
    Re();
    it();
    ((jn = (e, t) => {
      I()._OrtInit(e, t) !== 0 && S("Can't initialize onnxruntime.");
    }),
      (Le = async (e) => {
        jn(e.wasm.numThreads, fn(e.logLevel));
      }),
      (Pe = async (e, t) => {
        I().asyncInit?.();
        let n = e.webgpu.adapter;
        if (t === "webgpu") {
          if (typeof navigator > "u" || !navigator.gpu)
            throw new Error("WebGPU is not supported in current environment");
          if (n) {
            if (typeof n.limits != "object" || typeof n.features != "object" || typeof n.requestDevice != "function")
              throw new Error("Invalid GPU adapter set in `env.webgpu.adapter`. It must be a GPUAdapter object.");
          } else {
            let o = e.webgpu.powerPreference;
            if (o !== void 0 && o !== "low-power" && o !== "high-performance")
              throw new Error(`Invalid powerPreference setting: "${o}"`);
            let r = e.webgpu.forceFallbackAdapter;
            if (r !== void 0 && typeof r != "boolean") throw new Error(`Invalid forceFallbackAdapter setting: "${r}"`);
            if (((n = await navigator.gpu.requestAdapter({ powerPreference: o, forceFallbackAdapter: r })), !n))
              throw new Error(
                'Failed to get GPU adapter. You may need to enable flag "--enable-unsafe-webgpu" if you are using Chrome.',
              );
          }
        }
        if (t === "webnn" && (typeof navigator > "u" || !navigator.ml))
          throw new Error("WebNN is not supported in current environment");
      }),
      (ue = new Map()),
      (Vn = (e) => {
        let t = I(),
          n = t.stackSave();
        try {
          let o = t.PTR_SIZE,
            r = t.stackAlloc(2 * o);
          t._OrtGetInputOutputCount(e, r, r + o) !== 0 && S("Can't get session input/output count.");
          let s = o === 4 ? "i32" : "i64";
          return [Number(t.getValue(r, s)), Number(t.getValue(r + o, s))];
        } finally {
          t.stackRestore(n);
        }
      }),
      (dn = (e, t) => {
        let n = I(),
          o = n.stackSave(),
          r = 0;
        try {
          let i = n.PTR_SIZE,
            s = n.stackAlloc(2 * i);
          n._OrtGetInputOutputMetadata(e, t, s, s + i) !== 0 && S("Can't get session input/output metadata.");
          let u = Number(n.getValue(s, "*"));
          r = Number(n.getValue(s + i, "*"));
          let f = n.HEAP32[r / 4];
          if (f === 0) return [u, 0];
          let l = n.HEAPU32[r / 4 + 1],
            c = [];
          for (let d = 0; d < l; d++) {
            let p = Number(n.getValue(r + 8 + d * i, "*"));
            c.push(p !== 0 ? n.UTF8ToString(p) : Number(n.getValue(r + 8 + (d + l) * i, "*")));
          }
          return [u, f, c];
        } finally {
          (n.stackRestore(o), r !== 0 && n._OrtFree(r));
        }
      }),
      (we = (e) => {
        let t = I(),
          n = t._malloc(e.byteLength);
        if (n === 0) throw new Error(`Can't create a session. failed to allocate a buffer of size ${e.byteLength}.`);
        return (t.HEAPU8.set(e, n), [n, e.byteLength]);
      }),
      (De = async (e, t) => {
        let n,
          o,
          r = I();
        Array.isArray(e)
          ? ([n, o] = e)
          : e.buffer === r.HEAPU8.buffer
            ? ([n, o] = [e.byteOffset, e.byteLength])
            : ([n, o] = we(e));
        let i = 0,
          s = 0,
          a = 0,
          u = [],
          f = [],
          l = [];
        try {
          if ((([s, u] = await sn(t)), t?.externalData && r.mountExternalData)) {
            let g = [];
            for (let T of t.externalData) {
              let x = typeof T == "string" ? T : T.path,
                M = typeof T == "string" ? T : T.data;
              g.push(
                be(M).then((_) => {
                  r.mountExternalData(x, _);
                }),
              );
            }
            await Promise.all(g);
          }
          for (let g of t?.executionProviders ?? [])
            if ((typeof g == "string" ? g : g.name) === "webnn") {
              if (((r.shouldTransferToMLTensor = !1), typeof g != "string")) {
                let x = g,
                  M = x?.context,
                  _ = x?.gpuDevice,
                  de = x?.deviceType,
                  re = x?.powerPreference;
                M
                  ? (r.currentContext = M)
                  : _
                    ? (r.currentContext = await r.webnnCreateMLContext(_))
                    : (r.currentContext = await r.webnnCreateMLContext({ deviceType: de, powerPreference: re }));
              } else r.currentContext = await r.webnnCreateMLContext();
              break;
            }
          ((i = await r._OrtCreateSession(n, o, s)),
            r.webgpuOnCreateSession?.(i),
            i === 0 && S("Can't create a session."),
            r.jsepOnCreateSession?.(),
            r.currentContext &&
              (r.webnnRegisterMLContext(i, r.currentContext),
              (r.currentContext = void 0),
              (r.shouldTransferToMLTensor = !0)));
          let [c, d] = Vn(i),
            p = !!t?.enableGraphCapture,
            h = [],
            b = [],
            A = [],
            m = [],
            w = [];
          for (let g = 0; g < c; g++) {
            let [T, x, M] = dn(i, g);
            (T === 0 && S("Can't get an input name."), f.push(T));
            let _ = r.UTF8ToString(T);
            (h.push(_), A.push(x === 0 ? { name: _, isTensor: !1 } : { name: _, isTensor: !0, type: Ne(x), shape: M }));
          }
          for (let g = 0; g < d; g++) {
            let [T, x, M] = dn(i, g + c);
            (T === 0 && S("Can't get an output name."), l.push(T));
            let _ = r.UTF8ToString(T);
            (b.push(_), m.push(x === 0 ? { name: _, isTensor: !1 } : { name: _, isTensor: !0, type: Ne(x), shape: M }));
          }
          return (ue.set(i, [i, f, l, null, p, !1]), [i, h, b, A, m]);
        } catch (c) {
          throw (
            f.forEach((d) => r._OrtFree(d)),
            l.forEach((d) => r._OrtFree(d)),
            a !== 0 && r._OrtReleaseBinding(a) !== 0 && S("Can't release IO binding."),
            i !== 0 && r._OrtReleaseSession(i) !== 0 && S("Can't release session."),
            c
          );
        } finally {
          (r._free(n),
            s !== 0 && r._OrtReleaseSessionOptions(s) !== 0 && S("Can't release session options."),
            u.forEach((c) => r._free(c)),
            r.unmountExternalData?.());
        }
      }),
      (_e = (e) => {
        let t = I(),
          n = ue.get(e);
        if (!n) throw new Error(`cannot release session. invalid session id: ${e}`);
        let [o, r, i, s, a] = n;
        (s &&
          (a && t._OrtClearBoundOutputs(s.handle) !== 0 && S("Can't clear bound outputs."),
          t._OrtReleaseBinding(s.handle) !== 0 && S("Can't release IO binding.")),
          t.jsepOnReleaseSession?.(e),
          t.webnnOnReleaseSession?.(e),
          t.webgpuOnReleaseSession?.(e),
          r.forEach((u) => t._OrtFree(u)),
          i.forEach((u) => t._OrtFree(u)),
          t._OrtReleaseSession(o) !== 0 && S("Can't release session."),
          ue.delete(e));
      }),
      (ln = async (e, t, n, o, r, i, s = !1) => {
        if (!e) {
          t.push(0);
          return;
        }
        let a = I(),
          u = a.PTR_SIZE,
          f = e[0],
          l = e[1],
          c = e[3],
          d = c,
          p,
          h;
        if (f === "string" && (c === "gpu-buffer" || c === "ml-tensor"))
          throw new Error("String tensor is not supported on GPU.");
        if (s && c !== "gpu-buffer")
          throw new Error(
            `External buffer must be provided for input/output index ${i} when enableGraphCapture is true.`,
          );
        if (c === "gpu-buffer") {
          let m = e[2].gpuBuffer;
          h = ae(ie(f), l);
          {
            let w = a.jsepRegisterBuffer;
            if (!w) throw new Error('Tensor location "gpu-buffer" is not supported without using WebGPU.');
            p = w(o, i, m, h);
          }
        } else if (c === "ml-tensor") {
          let m = e[2].mlTensor;
          h = ae(ie(f), l);
          let w = a.webnnRegisterMLTensor;
          if (!w) throw new Error('Tensor location "ml-tensor" is not supported without using WebNN.');
          p = w(o, m, ie(f), l);
        } else {
          let m = e[2];
          if (Array.isArray(m)) {
            ((h = u * m.length), (p = a._malloc(h)), n.push(p));
            for (let w = 0; w < m.length; w++) {
              if (typeof m[w] != "string") throw new TypeError(`tensor data at index ${w} is not a string`);
              a.setValue(p + w * u, N(m[w], n), "*");
            }
          } else {
            let w = a.webnnIsGraphInput,
              O = a.webnnIsGraphOutput;
            if (f !== "string" && w && O) {
              let g = a.UTF8ToString(r);
              if (w(o, g) || O(o, g)) {
                let T = ie(f);
                ((h = ae(T, l)), (d = "ml-tensor"));
                let x = a.webnnCreateTemporaryTensor,
                  M = a.webnnUploadTensor;
                if (!x || !M) throw new Error('Tensor location "ml-tensor" is not supported without using WebNN.');
                let _ = await x(o, T, l);
                (M(_, new Uint8Array(m.buffer, m.byteOffset, m.byteLength)), (p = _));
              } else
                ((h = m.byteLength),
                  (p = a._malloc(h)),
                  n.push(p),
                  a.HEAPU8.set(new Uint8Array(m.buffer, m.byteOffset, h), p));
            } else
              ((h = m.byteLength),
                (p = a._malloc(h)),
                n.push(p),
                a.HEAPU8.set(new Uint8Array(m.buffer, m.byteOffset, h), p));
          }
        }
        let b = a.stackSave(),
          A = a.stackAlloc(4 * l.length);
        try {
          l.forEach((w, O) => a.setValue(A + O * u, w, u === 4 ? "i32" : "i64"));
          let m = a._OrtCreateTensor(ie(f), p, h, A, l.length, cn(d));
          (m === 0 && S(`Can't create tensor for input/output. session=${o}, index=${i}.`), t.push(m));
        } finally {
          a.stackRestore(b);
        }
      }),
      (Ue = async (e, t, n, o, r, i) => {
        let s = I(),
          a = s.PTR_SIZE,
          u = ue.get(e);
        if (!u) throw new Error(`cannot run inference. invalid session id: ${e}`);
        let f = u[0],
          l = u[1],
          c = u[2],
          d = u[3],
          p = u[4],
          h = u[5],
          b = t.length,
          A = o.length,
          m = 0,
          w = [],
          O = [],
          g = [],
          T = [],
          x = [],
          M = s.stackSave(),
          _ = s.stackAlloc(b * a),
          de = s.stackAlloc(b * a),
          re = s.stackAlloc(A * a),
          ct = s.stackAlloc(A * a);
        try {
          (([m, w] = rn(i)), K("wasm prepareInputOutputTensor"));
          for (let y = 0; y < b; y++) await ln(n[y], O, T, e, l[t[y]], t[y], p);
          for (let y = 0; y < A; y++) await ln(r[y], g, T, e, c[o[y]], b + o[y], p);
          Q("wasm prepareInputOutputTensor");
          for (let y = 0; y < b; y++) (s.setValue(_ + y * a, O[y], "*"), s.setValue(de + y * a, l[t[y]], "*"));
          for (let y = 0; y < A; y++) (s.setValue(re + y * a, g[y], "*"), s.setValue(ct + y * a, c[o[y]], "*"));
          (s.jsepOnRunStart?.(f), s.webnnOnRunStart?.(f));
          let F;
          ((F = await s._OrtRun(f, de, _, b, ct, A, re, m)), F !== 0 && S("failed to call OrtRun()."));
          let z = [],
            dt = [];
          K("wasm ProcessOutputTensor");
          for (let y = 0; y < A; y++) {
            let W = Number(s.getValue(re + y * a, "*"));
            if (W === g[y] || x.includes(g[y])) {
              (z.push(r[y]), W !== g[y] && s._OrtReleaseTensor(W) !== 0 && S("Can't release tensor."));
              continue;
            }
            let lt = s.stackSave(),
              $ = s.stackAlloc(4 * a),
              oe = !1,
              P,
              C = 0;
            try {
              s._OrtGetTensorData(W, $, $ + a, $ + 2 * a, $ + 3 * a) !== 0 &&
                S(`Can't access output tensor data on index ${y}.`);
              let je = a === 4 ? "i32" : "i64",
                ge = Number(s.getValue($, je));
              C = s.getValue($ + a, "*");
              let pt = s.getValue($ + a * 2, "*"),
                Bn = Number(s.getValue($ + a * 3, je)),
                H = [];
              for (let U = 0; U < Bn; U++) H.push(Number(s.getValue(pt + U * a, je)));
              s._OrtFree(pt) !== 0 && S("Can't free memory for tensor dims.");
              let j = H.reduce((U, L) => U * L, 1);
              P = Ne(ge);
              let le = d?.outputPreferredLocations[o[y]];
              if (P === "string") {
                if (le === "gpu-buffer" || le === "ml-tensor")
                  throw new Error("String tensor is not supported on GPU.");
                let U = [];
                for (let L = 0; L < j; L++) {
                  let V = s.getValue(C + L * a, "*"),
                    Ee = s.getValue(C + (L + 1) * a, "*"),
                    mt = L === j - 1 ? void 0 : Ee - V;
                  U.push(s.UTF8ToString(V, mt));
                }
                z.push([P, H, U, "cpu"]);
              } else if (le === "gpu-buffer" && j > 0) {
                let U = s.jsepGetBuffer;
                if (!U) throw new Error('preferredLocation "gpu-buffer" is not supported without using WebGPU.');
                let L = U(C),
                  V = ae(ge, j);
                if (V === void 0 || !Fe(P)) throw new Error(`Unsupported data type: ${P}`);
                ((oe = !0),
                  z.push([
                    P,
                    H,
                    {
                      gpuBuffer: L,
                      download: s.jsepCreateDownloader(L, V, P),
                      dispose: () => {
                        s._OrtReleaseTensor(W) !== 0 && S("Can't release tensor.");
                      },
                    },
                    "gpu-buffer",
                  ]));
              } else if (le === "ml-tensor" && j > 0) {
                let U = s.webnnEnsureTensor,
                  L = s.webnnIsGraphInputOutputTypeSupported;
                if (!U || !L) throw new Error('preferredLocation "ml-tensor" is not supported without using WebNN.');
                if (ae(ge, j) === void 0 || !ke(P)) throw new Error(`Unsupported data type: ${P}`);
                if (!L(e, P, !1))
                  throw new Error(
                    `preferredLocation "ml-tensor" for ${P} output is not supported by current WebNN Context.`,
                  );
                let Ee = await U(e, C, ge, H, !1);
                ((oe = !0),
                  z.push([
                    P,
                    H,
                    {
                      mlTensor: Ee,
                      download: s.webnnCreateMLTensorDownloader(C, P),
                      dispose: () => {
                        (s.webnnReleaseTensorId(C), s._OrtReleaseTensor(W));
                      },
                    },
                    "ml-tensor",
                  ]));
              } else if (le === "ml-tensor-cpu-output" && j > 0) {
                let U = s.webnnCreateMLTensorDownloader(C, P)(),
                  L = z.length;
                ((oe = !0),
                  dt.push(
                    (async () => {
                      let V = [L, await U];
                      return (s.webnnReleaseTensorId(C), s._OrtReleaseTensor(W), V);
                    })(),
                  ),
                  z.push([P, H, [], "cpu"]));
              } else {
                let U = un(P),
                  L = new U(j);
                (new Uint8Array(L.buffer, L.byteOffset, L.byteLength).set(s.HEAPU8.subarray(C, C + L.byteLength)),
                  z.push([P, H, L, "cpu"]));
              }
            } finally {
              (s.stackRestore(lt), P === "string" && C && s._free(C), oe || s._OrtReleaseTensor(W));
            }
          }
          d &&
            !p &&
            (s._OrtClearBoundOutputs(d.handle) !== 0 && S("Can't clear bound outputs."),
            ue.set(e, [f, l, c, d, p, !1]));
          for (let [y, W] of await Promise.all(dt)) z[y][2] = W;
          return (Q("wasm ProcessOutputTensor"), z);
        } finally {
          (s.webnnOnRunEnd?.(f),
            s.stackRestore(M),
            O.forEach((F) => s._OrtReleaseTensor(F)),
            g.forEach((F) => s._OrtReleaseTensor(F)),
            T.forEach((F) => s._free(F)),
            m !== 0 && s._OrtReleaseRunOptions(m),
            w.forEach((F) => s._free(F)));
        }
      }),
      (xe = (e) => {
        let t = I(),
          n = ue.get(e);
        if (!n) throw new Error("invalid session id");
        let o = n[0],
          r = t._OrtEndProfiling(o);
        (r === 0 && S("Can't get an profile file name."), t._OrtFree(r));
      }),
      (ve = (e) => {
        let t = [];
        for (let n of e) {
          let o = n[2];
          !Array.isArray(o) && "buffer" in o && t.push(o.buffer);
        }
        return t;
      }));
  });
var ne,
  k,
  ye,
  Ge,
  $e,
  We,
  at,
  ut,
  fe,
  ce,
  qn,
  pn,
  mn,
  wn,
  hn,
  bn,
  yn,
  gn,
  ft = E(() => {
    "use strict";
    J();
    tt();
    ee();
    Be();
    ((ne = () => !!B.wasm.proxy && typeof document < "u"),
      (ye = !1),
      (Ge = !1),
      ($e = !1),
      (ut = new Map()),
      (fe = (e, t) => {
        let n = ut.get(e);
        n ? n.push(t) : ut.set(e, [t]);
      }),
      (ce = () => {
        if (ye || !Ge || $e || !k) throw new Error("worker not ready");
      }),
      (qn = (e) => {
        switch (e.data.type) {
          case "init-wasm":
            ((ye = !1),
              e.data.err ? (($e = !0), at[1](e.data.err)) : ((Ge = !0), at[0]()),
              We && (URL.revokeObjectURL(We), (We = void 0)));
            break;
          case "init-ep":
          case "copy-from":
          case "create":
          case "release":
          case "run":
          case "end-profiling": {
            let t = ut.get(e.data.type);
            e.data.err ? t.shift()[1](e.data.err) : t.shift()[0](e.data.out);
            break;
          }
          default:
        }
      }),
      (pn = async () => {
        if (!Ge) {
          if (ye) throw new Error("multiple calls to 'initWasm()' detected.");
          if ($e) throw new Error("previous call to 'initWasm()' failed.");
          if (((ye = !0), ne()))
            return new Promise((e, t) => {
              (k?.terminate(),
                en().then(([n, o]) => {
                  try {
                    ((k = o), (k.onerror = (i) => t(i)), (k.onmessage = qn), (at = [e, t]));
                    let r = { type: "init-wasm", in: B };
                    if (!r.in.wasm.wasmPaths && n) {
                      let i = Ce();
                      i && (r.in.wasm.wasmPaths = i);
                    }
                    (k.postMessage(r), (We = n));
                  } catch (r) {
                    t(r);
                  }
                }, t));
            });
          try {
            (await Oe(B.wasm), await Le(B), (Ge = !0));
          } catch (e) {
            throw (($e = !0), e);
          } finally {
            ye = !1;
          }
        }
      }),
      (mn = async (e) => {
        if (ne())
          return (
            ce(),
            new Promise((t, n) => {
              fe("init-ep", [t, n]);
              let o = { type: "init-ep", in: { epName: e, env: B } };
              k.postMessage(o);
            })
          );
        await Pe(B, e);
      }),
      (wn = async (e) =>
        ne()
          ? (ce(),
            new Promise((t, n) => {
              fe("copy-from", [t, n]);
              let o = { type: "copy-from", in: { buffer: e } };
              k.postMessage(o, [e.buffer]);
            }))
          : we(e)),
      (hn = async (e, t) => {
        if (ne()) {
          if (t?.preferredOutputLocation)
            throw new Error('session option "preferredOutputLocation" is not supported for proxy.');
          return (
            ce(),
            new Promise((n, o) => {
              fe("create", [n, o]);
              let r = { type: "create", in: { model: e, options: { ...t } } },
                i = [];
              (e instanceof Uint8Array && i.push(e.buffer), k.postMessage(r, i));
            })
          );
        } else return De(e, t);
      }),
      (bn = async (e) => {
        if (ne())
          return (
            ce(),
            new Promise((t, n) => {
              fe("release", [t, n]);
              let o = { type: "release", in: e };
              k.postMessage(o);
            })
          );
        _e(e);
      }),
      (yn = async (e, t, n, o, r, i) => {
        if (ne()) {
          if (n.some((s) => s[3] !== "cpu")) throw new Error("input tensor on GPU is not supported for proxy.");
          if (r.some((s) => s)) throw new Error("pre-allocated output tensor is not supported for proxy.");
          return (
            ce(),
            new Promise((s, a) => {
              fe("run", [s, a]);
              let u = n,
                f = { type: "run", in: { sessionId: e, inputIndices: t, inputs: u, outputIndices: o, options: i } };
              k.postMessage(f, ve(u));
            })
          );
        } else return Ue(e, t, n, o, r, i);
      }),
      (gn = async (e) => {
        if (ne())
          return (
            ce(),
            new Promise((t, n) => {
              fe("end-profiling", [t, n]);
              let o = { type: "end-profiling", in: e };
              k.postMessage(o);
            })
          );
        xe(e);
      }));
  });
var En,
  Yn,
  ze,
  Sn = E(() => {
    "use strict";
    J();
    ft();
    st();
    Ae();
    it();
    ((En = (e, t) => {
      switch (e.location) {
        case "cpu":
          return [e.type, e.dims, e.data, "cpu"];
        case "gpu-buffer":
          return [e.type, e.dims, { gpuBuffer: e.gpuBuffer }, "gpu-buffer"];
        case "ml-tensor":
          return [e.type, e.dims, { mlTensor: e.mlTensor }, "ml-tensor"];
        default:
          throw new Error(`invalid data location: ${e.location} for ${t()}`);
      }
    }),
      (Yn = (e) => {
        switch (e[3]) {
          case "cpu":
            return new G(e[0], e[2], e[1]);
          case "gpu-buffer": {
            let t = e[0];
            if (!Fe(t)) throw new Error(`not supported data type: ${t} for deserializing GPU tensor`);
            let { gpuBuffer: n, download: o, dispose: r } = e[2];
            return G.fromGpuBuffer(n, { dataType: t, dims: e[1], download: o, dispose: r });
          }
          case "ml-tensor": {
            let t = e[0];
            if (!ke(t)) throw new Error(`not supported data type: ${t} for deserializing MLTensor tensor`);
            let { mlTensor: n, download: o, dispose: r } = e[2];
            return G.fromMLTensor(n, { dataType: t, dims: e[1], download: o, dispose: r });
          }
          default:
            throw new Error(`invalid data location: ${e[3]}`);
        }
      }),
      (ze = class {
        async fetchModelAndCopyToWasmMemory(t) {
          return wn(await be(t));
        }
        async loadModel(t, n) {
          Z();
          let o;
          (typeof t == "string" ? (o = await this.fetchModelAndCopyToWasmMemory(t)) : (o = t),
            ([this.sessionId, this.inputNames, this.outputNames, this.inputMetadata, this.outputMetadata] = await hn(
              o,
              n,
            )),
            X());
        }
        async dispose() {
          return bn(this.sessionId);
        }
        async run(t, n, o) {
          Z();
          let r = [],
            i = [];
          Object.entries(t).forEach((d) => {
            let p = d[0],
              h = d[1],
              b = this.inputNames.indexOf(p);
            if (b === -1) throw new Error(`invalid input '${p}'`);
            (r.push(h), i.push(b));
          });
          let s = [],
            a = [];
          Object.entries(n).forEach((d) => {
            let p = d[0],
              h = d[1],
              b = this.outputNames.indexOf(p);
            if (b === -1) throw new Error(`invalid output '${p}'`);
            (s.push(h), a.push(b));
          });
          let u = r.map((d, p) => En(d, () => `input "${this.inputNames[i[p]]}"`)),
            f = s.map((d, p) => (d ? En(d, () => `output "${this.outputNames[a[p]]}"`) : null)),
            l = await yn(this.sessionId, i, u, a, f, o),
            c = {};
          for (let d = 0; d < l.length; d++) c[this.outputNames[a[d]]] = s[d] ?? Yn(l[d]);
          return (X(), c);
        }
        startProfiling() {}
        endProfiling() {
          gn(this.sessionId);
        }
      }));
  });
var In = {};
qe(In, { OnnxruntimeWebAssemblyBackend: () => He, initializeFlags: () => Tn, wasmBackend: () => Zn });
var Tn,
  He,
  Zn,
  An = E(() => {
    "use strict";
    J();
    ft();
    Sn();
    ((Tn = () => {
      (typeof B.wasm.initTimeout != "number" || B.wasm.initTimeout < 0) && (B.wasm.initTimeout = 0);
      let e = B.wasm.simd;
      if (
        (typeof e != "boolean" &&
          e !== void 0 &&
          e !== "fixed" &&
          e !== "relaxed" &&
          (console.warn(
            `Property "env.wasm.simd" is set to unknown value "${e}". Reset it to \`false\` and ignore SIMD feature checking.`,
          ),
          (B.wasm.simd = !1)),
        typeof B.wasm.proxy != "boolean" && (B.wasm.proxy = !1),
        typeof B.wasm.trace != "boolean" && (B.wasm.trace = !1),
        typeof B.wasm.numThreads != "number" || !Number.isInteger(B.wasm.numThreads) || B.wasm.numThreads <= 0)
      )
        if (typeof self < "u" && !self.crossOriginIsolated) B.wasm.numThreads = 1;
        else {
          let t = typeof navigator > "u" ? Je("node:os").cpus().length : navigator.hardwareConcurrency;
          B.wasm.numThreads = Math.min(4, Math.ceil((t || 1) / 2));
        }
    }),
      (He = class {
        async init(t) {
          (Tn(), await pn(), await mn(t));
        }
        async createInferenceSessionHandler(t, n) {
          let o = new ze();
          return (await o.loadModel(t, n), o);
        }
      }),
      (Zn = new He()));
  });
J();
J();
J();
var jt = "1.30.0";
var Ro = et;
{
  let e = (An(), wt(In)).wasmBackend;
  (pe("cpu", e, 10), pe("wasm", e, 10));
}
Object.defineProperty(B.versions, "web", { value: jt, enumerable: !0 });
export {
  Un as InferenceSession,
  Nt as TRACE,
  K as TRACE_EVENT_BEGIN,
  Q as TRACE_EVENT_END,
  Z as TRACE_FUNC_BEGIN,
  X as TRACE_FUNC_END,
  G as Tensor,
  Ro as default,
  B as env,
  pe as registerBackend,
};
//# sourceMappingURL=ort.wasm.min.mjs.map
