# pare_embed(TARGET FILE FUNCTION): compiles a text file into TARGET as `std::string_view pare::FUNCTION()`. A raw string
# literal needs no tool of the build machine and no assembler, so it cross-compiles wherever C++ does.
function(pare_embed target file function)
  set(source ${CMAKE_CURRENT_BINARY_DIR}/embedded/${function}.cc)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${file})
  file(READ ${file} text)
  file(SIZE ${file} size)
  set(content "#include <string_view>\n\nnamespace pare {\nstd::string_view ${function}();\n")
  string(APPEND content "std::string_view ${function}() { return {R\"embedded(${text})embedded\", ${size}}; }\n}  // namespace pare\n")
  # Written only when it changed, so that configuring again does not compile again.
  set(old "")
  if(EXISTS ${source})
    file(READ ${source} old)
  endif()
  if(NOT old STREQUAL content)
    file(WRITE ${source} "${content}")
  endif()
  target_sources(${target} PRIVATE ${source})
endfunction()
