# Flags every source gets. Numbers must be the same on every machine, so floating-point contraction is off and a fused
# multiply-add is written out where it is meant. Link-time optimisation stays off: it would mix code compiled for different
# instruction sets.
option(PARE_WERROR "Treat warnings as errors (make check does)" OFF)
set(PARE_SANITIZE "" CACHE STRING "Sanitizers, as -fsanitize takes them")

set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")  # kernels and tensor: -O3, in PareRooms.cmake
add_compile_options(-Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -ffp-contract=off)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options(-Wno-restrict)  # g++ 12 warns of std::string's own copies (GCC bug 105329)
endif()
if(PARE_WERROR)
  add_compile_options(-Werror)
endif()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  add_compile_options(-march=x86-64-v2)
endif()
if(PARE_SANITIZE)
  add_compile_options(-fsanitize=${PARE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${PARE_SANITIZE})
endif()
if(PARE_STATIC)
  add_link_options(-static)
endif()
find_program(PARE_CCACHE ccache)
if(PARE_CCACHE)
  # Without this sloppiness ccache would not cache what uses a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${PARE_CCACHE})
endif()
