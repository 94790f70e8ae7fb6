# find_package(embgemma): embgemma::embgemma is the shared library, embgemma::embgemma_static the static one.
include(CMakeFindDependencyMacro)
find_dependency(Threads)
include("${CMAKE_CURRENT_LIST_DIR}/embgemma-targets.cmake")
