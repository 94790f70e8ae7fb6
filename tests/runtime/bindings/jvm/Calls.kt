// The Java API as a program in Kotlin calls it; test_jvm.py compiles and runs it.
import org.embgemma.EmbeddingModel
import org.embgemma.EmbgemmaException

fun main(arguments: Array<String>) {
    EmbeddingModel.open(arguments[0]).use { model ->
        val documents: Array<FloatArray> = model.embedDocuments(arguments.drop(2), model.dimensions())
        val query: FloatArray = model.embedQueryAsync(arguments[1]).get()
        for (document in documents) {
            val cosine = query.indices.sumOf { query[it].toDouble() * document[it] }
            println("%.4f".format(java.util.Locale.ROOT, cosine))
        }
        check("query" in model.promptNames())
    }
    try {
        EmbeddingModel.open("nothing")
    } catch (e: EmbgemmaException) {
        println(e.message)
    }
}
