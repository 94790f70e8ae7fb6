import XCTest

@testable import Embgemma

final class EmbeddingModelTests: XCTestCase {
    private func open() throws -> EmbeddingModel {
        let runtime = (1...5).reduce(URL(fileURLWithPath: #filePath)) { url, _ in url.deletingLastPathComponent() }
        return try EmbeddingModel(url: runtime.appendingPathComponent("models/embgemma-tiny.safetensors"))
    }

    func testBatchAndSingleTextsAgree() async throws {
        let model = try open()
        let texts = ["Venus is Earth's twin.", "", "Mars is red. 😀"]
        let batch = try await model.embed(documents: texts)
        for (text, vector) in zip(texts, batch) {
            let single = try await model.embed(documents: [text])
            XCTAssertEqual(single, [vector])
            XCTAssertEqual(vector.map { $0 * $0 }.reduce(0, +), 1, accuracy: 1e-5)
        }
        let part = try await model.embed(query: "red", dimensions: 64)
        XCTAssertEqual(part.count, 64)
    }

    func testErrors() async throws {
        XCTAssertThrowsError(try EmbeddingModel(url: URL(fileURLWithPath: "/nothing")))
        XCTAssertThrowsError(try EmbeddingModel(url: URL(string: "https://example.org/model.safetensors")!))
        let model = try open()
        XCTAssertThrowsError(try model.fingerprint(dimensions: 0))
        XCTAssertThrowsError(try model.fingerprint(promptName: "nothing"))
    }

    func testCancelledTaskStops() async throws {
        let model = try open()
        let task = Task { try await model.embed(documents: [String](repeating: "a text", count: 10_000_000)) }
        task.cancel()
        let result = await task.result
        XCTAssertThrowsError(try result.get()) { XCTAssertTrue($0 is CancellationError) }
    }
}
