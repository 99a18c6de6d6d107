package dev.parcae.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test

class StopVectorsTest {
    @Test
    fun `stops at texts wherever pieces are cut`() {
        for (case in Vectors.cases("stop", "texts")) {
            val stop = StopTexts(case.texts("stops"))
            assertEquals(case.texts("shown"), case.texts("pieces").map { stop.feed(it) }, case.text("case"))
            assertEquals(case.text("rest"), stop.finish(), case.text("case"))
            assertEquals(case.textOrNull("found"), stop.found, case.text("case"))
        }
    }

    @Test
    fun `refuses an empty stop`() {
        for (case in Vectors.cases("stop", "bad")) assertThrows(Failure::class.java) { StopTexts(case.texts("stops")) }
    }
}
