# pare_room(NAME [ON rooms...] [LINK targets...]): the library pare_NAME from every source of src/NAME. Folders of src/kernels
# named after an instruction set are compiled with its flags, and only where the target machine's family has it; x86 and arm
# hold what a whole family shares, with no flags of their own.
set(PARE_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(PARE_ISA_FLAGS_avxvnni ${PARE_ISA_FLAGS_avx2} -mavxvnni)
# g++ 12 takes its own AVX-512 intrinsics for reads of uninitialised values (GCC bug 105593).
set(PARE_ISA_FLAGS_avx512 ${PARE_ISA_FLAGS_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl
  $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized> $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
set(PARE_ISA_FLAGS_avx512vnni ${PARE_ISA_FLAGS_avx512} -mavx512vnni)
set(PARE_ISA_FLAGS_avx512vbmi ${PARE_ISA_FLAGS_avx512vnni} -mavx512vbmi)
set(PARE_ISA_FLAGS_amx ${PARE_ISA_FLAGS_avx512vbmi} -mamx-tile -mamx-int8)
# g++'s first scheduling pass brings loads forward until the kernels' registers do not suffice.
set(neon_flags $<$<CXX_COMPILER_ID:GNU>:-fno-schedule-insns>)
set(PARE_ISA_FLAGS_neon -march=armv8-a ${neon_flags})
set(PARE_ISA_FLAGS_neondot -march=armv8.2-a+dotprod ${neon_flags})
set(PARE_ISA_FLAGS_neoni8mm -march=armv8.2-a+i8mm ${neon_flags})
# Additions of vectors are plain expressions to g++, products are calls: replacing temporary expressions moves the additions
# of a whole strip behind its products, which then all wait in memory.
set(PARE_TERNARY_FLAGS $<$<CXX_COMPILER_ID:GNU>:-fno-tree-ter>)
# Sanitized, g++ compiles unrolled loops in a third of the time where each access calls its check and where two checks are
# left out that AddressSanitizer makes, too, once the address is used.
set(PARE_UNROLLED_FLAGS "")
if(PARE_SANITIZE MATCHES "address" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(PARE_UNROLLED_FLAGS -fno-sanitize=pointer-overflow,object-size --param=asan-instrumentation-with-call-threshold=0)
endif()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(PARE_ISAS x86 avx2 avxvnni avx512 avx512vnni avx512vbmi amx)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  set(PARE_ISAS arm neon neondot neoni8mm)
endif()

function(pare_room name)
  cmake_parse_arguments(ROOM "" "" "ON;LINK" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/src/${name}/*.cc)
  foreach(isa x86 avx2 avxvnni avx512 avx512vnni avx512vbmi amx arm neon neondot neoni8mm)
    file(GLOB isa_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/src/${name}/${isa}/*.cc)
    if(isa IN_LIST PARE_ISAS)
      set_source_files_properties(${isa_sources} PROPERTIES COMPILE_OPTIONS "${PARE_ISA_FLAGS_${isa}};${PARE_UNROLLED_FLAGS}")
      list(FILTER isa_sources INCLUDE REGEX "/ternary\\.cc$")
      set_property(SOURCE ${isa_sources} APPEND PROPERTY COMPILE_OPTIONS ${PARE_TERNARY_FLAGS})
    elseif(isa_sources)
      list(REMOVE_ITEM sources ${isa_sources})
    endif()
  endforeach()
  list(TRANSFORM ROOM_ON PREPEND pare_)
  if(sources)
    add_library(pare_${name} STATIC ${sources})
    target_include_directories(pare_${name} PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/src)
    target_link_libraries(pare_${name} PUBLIC ${ROOM_ON} ${ROOM_LINK})
    if(name MATCHES "^(kernels|tensor)$")
      target_compile_options(pare_${name} PRIVATE $<$<CONFIG:Release>:-O3>)
    endif()
    if(name STREQUAL kernels)
      if(PARE_FUZZ)
        # No parser's; and clang takes many minutes over unrolled loops with all that.
        target_compile_options(pare_kernels PRIVATE -fno-sanitize=undefined,fuzzer-no-link -fno-profile-instr-generate
          -fno-coverage-mapping)
      endif()
    endif()
  else()
    add_library(pare_${name} INTERFACE)
    target_include_directories(pare_${name} INTERFACE ${CMAKE_CURRENT_SOURCE_DIR}/src)
    target_link_libraries(pare_${name} INTERFACE ${ROOM_ON} ${ROOM_LINK})
  endif()
endfunction()
