# What `make install` and `make deb` put where.
include(GNUInstallDirs)
set(data ${CMAKE_INSTALL_DATADIR})
install(FILES README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright)

# The program writes its own completions; asking it at install time keeps them true.
install(CODE "
  foreach(shell bash zsh fish)
    execute_process(COMMAND ${CMAKE_CROSSCOMPILING_EMULATOR} $<TARGET_FILE:pare> completion \${shell}
      OUTPUT_FILE ${CMAKE_CURRENT_BINARY_DIR}/completion.\${shell} COMMAND_ERROR_IS_FATAL ANY)
  endforeach()")
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/completion.bash DESTINATION ${data}/bash-completion/completions RENAME pare)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/completion.zsh DESTINATION ${data}/zsh/vendor-completions RENAME _pare)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/completion.fish DESTINATION ${data}/fish/vendor_completions.d RENAME pare.fish)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_CONTACT "The pare authors")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "make transformer models small and fast, and run them")
set(CPACK_PACKAGE_DESCRIPTION "pare measures what in a transformer model is redundant, removes it, lowers the precision of what is
left, and shows what each step cost and gained. The result is one GGUF file that it runs on CPUs.")
include(CPack)
