import CEmbgemma
import Foundation

/// What the engine says: what was found, what was expected, and how to fix it.
public struct EmbeddingError: Error, CustomStringConvertible, LocalizedError {
    public let description: String
    public var errorDescription: String? { description }
}

/// A model file that `embgemma convert` made, open on this device: texts to vectors, offline. Vectors have length 1, so
/// a dot product is a cosine, and the same bits on every device and in every batch.
///
///     let model = try EmbeddingModel(url: Bundle.main.url(forResource: "model", withExtension: "safetensors")!)
///     let query = try await model.embed(query: "Which planet is red?")
///     let documents = try await model.embed(documents: ["Venus is Earth's twin.", "Mars is red."])
///
/// Any number of threads and tasks may share a model; their calls run one after another, each on the model's own threads.
/// The file is mapped: it takes the memory of what is used of it, so leave it as it is, or replace it by a rename.
public final class EmbeddingModel: @unchecked Sendable {
    private let model: OpaquePointer
    private let context: OpaquePointer
    private let queue = DispatchQueue(label: "embgemma", qos: .userInitiated)

    /// The size of a full vector.
    public var dimensions: Int { Int(eg_model_dim(model)) }

    /// Of a text with its prompt; longer texts are cut at their end.
    public var maxTokens: Int { Int(eg_model_max_tokens(model)) }

    public var threads: Int { Int(eg_context_threads(context)) }

    /// What it runs on, such as "neondot".
    public var instructionSet: String { String(cString: eg_context_isa(context)) }

    /// The prompts that the model was trained with.
    public var promptNames: [String] {
        (0..<eg_model_prompt_count(model)).map { String(cString: eg_model_prompt_name(model, $0)) }
    }

    /// - Parameter threads: 0 for the number of fast cores.
    public init(url: URL, threads: Int = 0) throws {
        guard url.isFileURL else {
            throw EmbeddingError(description: "\(url) is no file; nothing is downloaded here")
        }
        guard let count = UInt32(exactly: threads) else {
            throw EmbeddingError(description: "threads \(threads); expected 1 or more, or 0 for a good number")
        }
        var opened: OpaquePointer?
        try url.withUnsafeFileSystemRepresentation { try check(eg_model_open($0, &opened)) }
        var created: OpaquePointer?
        do {
            try check(eg_context_create(opened, count, nil, &created))
        } catch {
            eg_model_free(opened)
            throw error
        }
        model = opened!
        context = created!
    }

    deinit {
        eg_context_free(context)
        eg_model_free(model)
    }

    /// Names the vectors of these arguments: see `eg_model_fingerprint` in embgemma.h.
    public func fingerprint(promptName: String? = nil, dimensions: Int? = nil) throws -> String {
        var text = [CChar](repeating: 0, count: Int(EG_FINGERPRINT_BYTES))
        let size = try checked(dimensions)
        try check(eg_model_fingerprint(model, checked(promptName), size, &text))
        return String(cString: text)
    }

    // MARK: Texts to vectors

    /// The vector of a query.
    /// - Parameter dimensions: its size; EmbeddingGemma was trained for 768, 512, 256 and 128.
    public func embed(query: String, dimensions: Int? = nil) throws -> [Float] {
        try compute([query], promptOr("query"), dimensions)[0]
    }

    /// The vectors of documents, all in one batch.
    public func embed(documents: [String], dimensions: Int? = nil) throws -> [[Float]] {
        try compute(documents, promptOr("document"), dimensions)
    }

    /// - Parameter promptName: one of `promptNames`; "" for none, nil for the model's default.
    public func embed(_ texts: [String], promptName: String?, dimensions: Int? = nil) throws -> [[Float]] {
        try compute(texts, promptName, dimensions)
    }

    // MARK: Without blocking the caller; a task that is cancelled stops before the next text

    public func embed(query: String, dimensions: Int? = nil) async throws -> [Float] {
        try await later([query], promptOr("query"), dimensions)[0]
    }

    public func embed(documents: [String], dimensions: Int? = nil) async throws -> [[Float]] {
        try await later(documents, promptOr("document"), dimensions)
    }

    public func embed(_ texts: [String], promptName: String?, dimensions: Int? = nil) async throws -> [[Float]] {
        try await later(texts, promptName, dimensions)
    }

    private func later(_ texts: [String], _ promptName: String?, _ dimensions: Int?) async throws -> [[Float]] {
        let stopped = Flag()
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                queue.async {
                    continuation.resume(with: Result {
                        try texts.map { text in
                            if stopped.isSet { throw CancellationError() }
                            return try self.compute([text], promptName, dimensions)[0]
                        }
                    })
                }
            }
        } onCancel: {
            stopped.set()
        }
    }

    private func compute(_ texts: [String], _ promptName: String?, _ dimensions: Int?) throws -> [[Float]] {
        let size = try checked(dimensions)
        let name = try checked(promptName)
        let dim = Int(size)
        let lengths = texts.map { $0.utf8.count }
        let joined = texts.flatMap { $0.utf8.map { CChar(bitPattern: $0) } } + [0] // so that it has an address
        var vectors = [Float](repeating: 0, count: texts.count * dim)
        try joined.withUnsafeBufferPointer { bytes in
            var begin = bytes.baseAddress!
            let begins: [UnsafePointer<CChar>?] = lengths.map { length in
                defer { begin += length }
                return begin
            }
            try check(eg_embed(context, begins, lengths, texts.count, name, size, &vectors))
        }
        return texts.indices.map { Array(vectors[$0 * dim ..< ($0 + 1) * dim]) }
    }

    /// The prompt of this name, or none if the model lacks it.
    private func promptOr(_ name: String) -> String {
        eg_model_prompt(model, name) != nil ? name : ""
    }

    private func checked(_ dimensions: Int?) throws -> UInt32 {
        let size = dimensions ?? self.dimensions
        guard (1...self.dimensions).contains(size) else {
            throw EmbeddingError(description: "embedding size \(size): expected 1 … \(self.dimensions)")
        }
        return UInt32(size)
    }

    private func checked(_ promptName: String?) throws -> String? {
        guard promptName?.utf8.contains(0) != true else {
            throw EmbeddingError(description: "the prompt's name has a zero in it")
        }
        return promptName
    }
}

/// Call it on the thread that made the call.
private func check(_ status: eg_status) throws {
    guard status == EG_OK else {
        throw EmbeddingError(description: String(cString: eg_error_message()))
    }
}

/// Set by one thread, seen by another.
private final class Flag: @unchecked Sendable {
    private let lock = NSLock()
    private var value = false

    var isSet: Bool {
        lock.lock()
        defer { lock.unlock() }
        return value
    }

    func set() {
        lock.lock()
        value = true
        lock.unlock()
    }
}
