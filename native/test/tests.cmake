# The C++ tests, the CUDA backend on an emulated device, and the GEMM benchmark. Included by CMakeLists.txt.

# The CUDA backend as plain C++ on an emulated device: every file of native/cuda is compiled
# unchanged, against headers that stand in for the toolkit's. Nothing of the toolkit is needed.
# Vector loads of device code reinterpret scalar arrays, as nvcc allows.
file(GLOB emulation_sources CONFIGURE_DEPENDS native/test/cuda_emulation/*.cc)
file(GLOB cuda_sources CONFIGURE_DEPENDS native/cuda/*.cu native/cuda/*.cc)
list(REMOVE_ITEM cuda_sources ${cuda_host_sources})
set(emulated_sources)
foreach(source IN LISTS cuda_sources)
  cmake_path(GET source STEM family)
  cmake_path(GET source EXTENSION LAST_ONLY kind)
  string(SUBSTRING "${kind}" 1 -1 kind)
  set(emulated ${CMAKE_CURRENT_BINARY_DIR}/cuda_emulated/${family}_${kind}.cc)
  file(CONFIGURE OUTPUT ${emulated} @ONLY
    CONTENT "#include <cuda_runtime.h>\n\n#include \"@source@\"\n")
  list(APPEND emulated_sources ${emulated})
endforeach()
set_source_files_properties(${emulated_sources} PROPERTIES
  COMPILE_OPTIONS "$<IF:$<STREQUAL:${LOKO_SANITIZE},off>,-O3,-O1>;-fno-strict-aliasing;-Wno-unknown-pragmas;${one_thread_flags}")
set_source_files_properties(native/test/cuda_emulation/wmma.cc
  PROPERTIES COMPILE_OPTIONS "${one_thread_flags}")
add_library(loko_cuda_emulated STATIC ${emulation_sources} ${emulated_sources})
target_include_directories(loko_cuda_emulated BEFORE PUBLIC native/test/cuda_emulation/include)
target_include_directories(loko_cuda_emulated PUBLIC native native/test)
target_link_libraries(loko_cuda_emulated PUBLIC loko_cuda_host Threads::Threads ${CMAKE_DL_LIBS}
  PRIVATE loko_flags)

file(GLOB test_sources CONFIGURE_DEPENDS native/test/*_test.cc)
set(gpu_test_sources ${test_sources})
list(FILTER test_sources EXCLUDE REGEX "/gpu_[a-z_]*_test\\.cc$")
add_executable(loko_native_tests native/test/main.cc ${test_sources})
target_include_directories(loko_native_tests SYSTEM PRIVATE native/third_party)
target_link_libraries(loko_native_tests PRIVATE loko_cuda_emulated loko_core loko_flags)

# The tests of operations once more, with the backend of a real device: npm run test:gpu. They are the
# same sources; which makeCudaBackend() they are linked with is the difference.
if(has_cuda)
  list(FILTER gpu_test_sources INCLUDE REGEX "/(op|gpu)_[a-z_]*_test\\.cc$")
  add_executable(loko_gpu_tests EXCLUDE_FROM_ALL native/test/main.cc ${gpu_test_sources})
  target_include_directories(loko_gpu_tests SYSTEM PRIVATE native/third_party)
  target_compile_definitions(loko_gpu_tests PRIVATE LOKO_TEST_DEVICE=1)
  target_link_libraries(loko_gpu_tests PRIVATE loko_cuda loko_flags)
endif()

# Libraries with the names of cuBLASLt, for the tests of where it is looked for.
set(stubs ${CMAKE_BINARY_DIR}/cublaslt_stubs)
set_source_files_properties(native/test/cublaslt_search_test.cc PROPERTIES
  COMPILE_DEFINITIONS LOKO_CUBLASLT_STUBS="${stubs}")
foreach(stub IN ITEMS
    13/13/130101 12/12/120805 11/11/110500 incomplete/13/130101 misnamed/13/120805
    home/lib64/13/130101 home/lib64/12/120805)
  string(REGEX MATCH "^(.*)/([0-9]+)/([0-9]+)$" _ ${stub})
  set(folder ${CMAKE_MATCH_1})
  set(major ${CMAKE_MATCH_2})
  set(version ${CMAKE_MATCH_3})
  string(MAKE_C_IDENTIFIER "loko_cublaslt_stub_${folder}_${major}" name)
  add_library(${name} MODULE native/test/cublaslt_stub.cc)
  target_compile_definitions(${name} PRIVATE STUB_VERSION=${version}
    $<$<STREQUAL:${folder},incomplete>:STUB_INCOMPLETE>)
  set_target_properties(${name} PROPERTIES
    PREFIX "" OUTPUT_NAME libcublasLt SUFFIX .so.${major} LIBRARY_OUTPUT_DIRECTORY ${stubs}/${folder})
  add_dependencies(loko_native_tests ${name})
endforeach()

find_path(cublaslt_include cublasLt.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
if(has_cuda AND cublaslt_include)
  add_library(loko_cublaslt_declarations OBJECT native/test/cublaslt_declarations.cc)
  target_include_directories(loko_cublaslt_declarations SYSTEM PRIVATE
    ${cublaslt_include} ${CUDAToolkit_INCLUDE_DIRS})
  target_include_directories(loko_cublaslt_declarations PRIVATE native)
  target_link_libraries(loko_cublaslt_declarations PRIVATE loko_flags)
endif()
# Under sanitizers the optimiser takes most of the time, and nothing depends on its work.
target_compile_options(loko_native_tests PRIVATE $<$<NOT:$<STREQUAL:${LOKO_SANITIZE},off>>:-O1>)

if(EXISTS ${CMAKE_SOURCE_DIR}/native/test/bench_gemm.cc)
  add_executable(loko_bench_gemm native/test/bench_gemm.cc)
  target_link_libraries(loko_bench_gemm PRIVATE loko_core loko_flags)
endif()
