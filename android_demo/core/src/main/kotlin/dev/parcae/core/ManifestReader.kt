package dev.parcae.core

import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.contentOrNull
import kotlinx.serialization.json.intOrNull

const val APP_MANIFEST = "app.json"

/** Bytes that an `app.json` may have: two hundred times what a bundled model's has. Read no further. */
const val MOST_MANIFEST = 1_000_000
private const val FORMAT = 1
private const val ARTIFACT_MANIFEST = "manifest.json"
private val PATH_PART = Regex("[A-Za-z0-9_][A-Za-z0-9_. -]*")
private val VERSION = Regex("[0-9]+(\\.[0-9]+)*")
private val SHA256 = Regex("[0-9a-f]{64}")

/** Validate the text of an `app.json`. Throws a [Failure] of kind JSON, FORMAT, PATH or FIELD. */
fun readAppManifest(text: String): AppManifest {
    checkManifestSize(text.toByteArray().size)
    val values = parseJson(text) as? JsonObject
        ?: throw Failure(Kind.JSON, "$APP_MANIFEST is not a JSON object; bundle the model again.")
    val format = values["format"] as? JsonPrimitive
    if (format == null || format.isString || format.intOrNull != FORMAT) {
        val found = format?.contentOrNull ?: "none"
        throw Failure(Kind.FORMAT, "$APP_MANIFEST has format $found, this app reads $FORMAT; update the app.", "format")
    }
    namedFiles(values).firstOrNull { !isSafePath(it) }?.let {
        throw Failure(Kind.PATH, "$APP_MANIFEST names '$it', a path that leads elsewhere; do not use this model.", it)
    }
    return manifestOf(Fields(values)).also { checkTogether(it) }
}

/** Throw a [Failure] of kind JSON for an `app.json` of more bytes than one may have. */
fun checkManifestSize(bytes: Int) {
    if (bytes > MOST_MANIFEST) throw Failure(Kind.JSON, "$APP_MANIFEST has more than $MOST_MANIFEST bytes; bundle the model again.")
}

/** Whether a path is relative, POSIX, and stays inside of the folder. */
fun isSafePath(path: String): Boolean = path != ARTIFACT_MANIFEST && path.split("/").all { PATH_PART.matches(it) }

private fun namedFiles(values: JsonObject): List<String> {
    val graphs = (values["graphs"] as? JsonObject)?.values.orEmpty()
    val parts = listOf(values["tokenizer"], values["self_test"]) + graphs
    val named = parts.mapNotNull { part -> ((part as? JsonObject)?.get("file") as? JsonPrimitive)?.takeIf { it.isString }?.content }
    return (values["files"] as? JsonObject)?.keys.orEmpty().toList() + named
}

private fun manifestOf(fields: Fields) = AppManifest(
    name = fields.text("name", PATH_PART),
    model = fields.text("model"),
    platform = fields.text("platform", setOf("web", "android", "ios")),
    target = fields.text("target", setOf("onnx", "executorch", "coreml")),
    runtime = runtimeOf(fields.part("runtime")),
    loops = loopsOf(fields.part("loops")),
    graphs = fields.parts("graphs").mapValues { (_, graph) ->
        Graph(graph.text("file"), if (graph.has("function")) graph.text("function") else null)
    },
    recipe = fields.text("recipe"),
    compute = fields.text("compute", setOf("fp32", "fp16", "int8")),
    promise = fields.text("promise"),
    tokenParity = fields.flag("token_parity"),
    verified = fields.flag("verified"),
    portable = fields.flag("portable"),
    lastLogits = fields.flag("last_logits"),
    stateWidth = fields.count("state_width", 1),
    vocabSize = fields.count("vocab_size", 1),
    paddedVocabSize = fields.count("padded_vocab_size", 1),
    cache = cacheOf(fields.part("cache")),
    memory = memoryOf(fields.part("memory")),
    tokenizer = if (fields.isNull("tokenizer")) null else tokenizerOf(fields.part("tokenizer")),
    selfTest = if (fields.isNull("self_test")) null else selfTestOf(fields.part("self_test")),
    files = fields.parts("files").mapValues { (_, file) -> FileEntry(file.long("bytes"), file.text("sha256", SHA256)) },
)

private fun runtimeOf(fields: Fields) = RuntimeNeed(
    name = fields.text("name", setOf("onnxruntime", "executorch", "coreml")),
    minimum = fields.text("minimum", VERSION),
    reason = fields.text("reason"),
    settings = if (fields.has("settings")) fields.texts("settings") else emptyMap(),
)

private fun loopsOf(fields: Fields): LoopRange {
    val found = LoopRange(
        form = fields.text("form", setOf("stages", "scan", "unrolled", "while")),
        min = fields.count("min", 1),
        max = fields.count("max", 1),
        trained = fields.count("trained", 1),
        built = if (fields.has("built")) fields.counts("built", 1) else emptyList(),
        earlyExit = fields.flag("early_exit"),
        exitFrom = if (fields.has("exit_from")) fields.count("exit_from", 1) else 1,
    )
    if (found.min > found.max || found.built.any { it !in found.min..found.max }) {
        fields.refuse("built", "does not fit min and max")
    }
    if (found.earlyExit && found.exitFrom < found.min) fields.refuse("exit_from", "is below min")
    return found
}

private fun cacheOf(fields: Fields) = CacheShape(
    policy = fields.text("policy", POLICIES.keys),
    dtype = fields.text("dtype", setOf("fp32", "fp16", "int8")),
    context = fields.count("context", 1),
    prefillChunk = fields.count("prefill_chunk", 1),
    prelude = stageOf(fields.part("prelude")),
    recur = stageOf(fields.part("recur")),
    coda = stageOf(fields.part("coda")),
)

private fun stageOf(fields: Fields) =
    StageShape(fields.count("layers"), fields.count("heads", 1), fields.count("head_size", 1), fields.count("slots", 1))

private fun memoryOf(fields: Fields) = MemoryNeed(
    weights = fields.long("weights"),
    cachePerToken = fields.long("cache_per_token"),
    cachePerTokenAndSlot = fields.long("cache_per_token_and_slot"),
    slots = fields.count("slots", 1),
    workPerChunkToken = fields.long("work_per_chunk_token"),
    work = fields.long("work"),
    overheadPercent = fields.long("overhead_percent"),
)

private fun tokenizerOf(fields: Fields) = TokenizerFacts(
    file = fields.text("file"),
    vocabSize = fields.count("vocab_size", 1),
    bos = fields.count("bos"),
    addBos = fields.flag("add_bos"),
    stop = fields.counts("stop"),
)

private fun selfTestOf(fields: Fields) = SelfTestFacts(
    file = fields.text("file"),
    inputIds = fields.counts("input_ids"),
    positions = fields.counts("positions"),
    logits = byLoops(fields, "logits", fields.parts("logits")).mapValues { (_, rows) ->
        val shape = rows.counts("shape", 1)
        if (shape.size != 2) rows.refuse("shape", "has not two sizes")
        LogitRows(rows.long("offset"), shape[0], shape[1])
    },
    maxAbs = fields.number("max_abs"),
    klMean = fields.number("kl_mean"),
    top1 = fields.number("top1"),
    greedy = if (fields.isNull("greedy")) null else greedyOf(fields.part("greedy")),
)

private fun greedyOf(fields: Fields): GreedyFacts {
    val tokens = fields.part("tokens")
    val byText = tokens.values.keys.associateWith { tokens.counts(it) }
    return GreedyFacts(fields.counts("prompt"), byLoops(fields, "tokens", byText), fields.flag("exact"))
}

private fun <V> byLoops(fields: Fields, name: String, values: Map<String, V>): Map<Int, V> =
    values.mapKeys { (key, _) -> key.toIntOrNull() ?: fields.refuse(name, "has a loop count that is no number") }

private fun checkTogether(manifest: AppManifest) {
    fun refuse(where: String, why: String): Nothing =
        throw Failure(Kind.FIELD, "$APP_MANIFEST is damaged: $where $why. Bundle the model again.", where)

    val named = manifest.graphs.values.map { it.file } + listOfNotNull(manifest.tokenizer?.file, manifest.selfTest?.file)
    named.firstOrNull { name -> manifest.files.keys.none { it == name || it.startsWith("$name/") } }
        ?.let { refuse(it, "is not among the files") }
    val wanted = when {
        manifest.loops.form == "stages" -> setOf("prelude", "recur", "coda")
        manifest.loops.built.isEmpty() -> setOf("model")
        else -> manifest.loops.built.map { it.toString() }.toSet()
    }
    if (manifest.graphs.keys != wanted) refuse("graphs", "are not ${wanted.joinToString()}")
    if (manifest.vocabSize > manifest.paddedVocabSize) refuse("vocab_size", "is above padded_vocab_size")
    manifest.tokenizer?.let { if ((it.stop + it.bos).max() >= manifest.vocabSize) refuse("tokenizer", "names an id beyond the vocabulary") }
    manifest.selfTest?.let { test ->
        val size = manifest.files.getValue(test.file).bytes
        for (rows in test.logits.values) {
            if (rows.positions != test.positions.size || rows.width != manifest.paddedVocabSize) {
                refuse("self_test", "has rows of another shape")
            }
            if (rows.offset + 4L * rows.positions * rows.width > size) refuse("self_test", "has rows outside of its file")
        }
    }
}
