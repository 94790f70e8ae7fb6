// swift-tools-version:5.7
import PackageDescription

// The engine lies outside of the package, so its files are included by those of CEmbgemma. The flags are those of
// kernels/CMakeLists.txt; for local packages, Swift accepts them. Flags of single files cannot be stated: isa.h does it.
let kernels = Context.packageDirectory + "/../../../kernels"

let package = Package(
    name: "Embgemma",
    platforms: [.macOS(.v11), .iOS(.v14)],
    products: [.library(name: "Embgemma", targets: ["Embgemma"])],
    targets: [
        .target(
            name: "CEmbgemma",
            cSettings: [
                .define("EG_VERSION", to: "\"0.1.0\""),
                .unsafeFlags(["-I" + kernels, "-O3", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden"]),
            ]
        ),
        .target(name: "Embgemma", dependencies: ["CEmbgemma"]),
        .testTarget(name: "EmbgemmaTests", dependencies: ["Embgemma"]),
    ],
    cLanguageStandard: .c11
)
