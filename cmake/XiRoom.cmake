# xi_room(flow SOURCES a.c b.c USES base core LIBS PkgConfig::X)
#   a room is a static library xi_flow; USES are the rooms it may know (tools/rooms.txt agrees).
# xi_unit_test(flow resize_test.c [LIBS …]) builds and registers the test that stands beside it.
# xi_program(xinferd SOURCES main.c USES …), xi_engine(reference SOURCES … LIBS …)
#   programs named xinfer*, and the engines of src/, are installed; the target `programs` builds them.

add_custom_target(programs)

add_library(xi_flags INTERFACE)
target_compile_definitions(xi_flags INTERFACE _POSIX_C_SOURCE=200809L)
target_include_directories(xi_flags INTERFACE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/include)
target_compile_options(xi_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla
  -Wformat=2 $<$<C_COMPILER_ID:GNU>:-Wno-format-truncation> -Wundef -fno-strict-aliasing)
option(XI_WERROR "warnings are errors" OFF)
if(XI_WERROR)
  target_compile_options(xi_flags INTERFACE -Werror)
endif()
option(XI_HARDEN "hardened release flags" OFF)
if(XI_HARDEN)
  target_compile_options(xi_flags INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3
    -fstack-protector-strong -fstack-clash-protection -fcf-protection
    -ftrivial-auto-var-init=zero)
  add_link_options(-Wl,-z,relro,-z,now -pie)
endif()

function(xi_room name)
  cmake_parse_arguments(R "" "" "SOURCES;USES;LIBS" ${ARGN})
  string(REPLACE "/" "_" target xi_${name})
  add_library(${target} STATIC ${R_SOURCES})
  list(TRANSFORM R_USES REPLACE "/" "_")
  list(TRANSFORM R_USES PREPEND xi_)
  target_link_libraries(${target} PUBLIC xi_flags ${R_USES} ${R_LIBS})
endfunction()

function(xi_program name)
  cmake_parse_arguments(R "" "" "SOURCES;USES;LIBS" ${ARGN})
  add_executable(${name} ${R_SOURCES})
  list(TRANSFORM R_USES REPLACE "/" "_")
  list(TRANSFORM R_USES PREPEND xi_)
  target_link_libraries(${name} PRIVATE xi_flags ${R_USES} ${R_LIBS})
  if(name MATCHES "^xinfer")
    add_dependencies(programs ${name})
    install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
endfunction()

function(xi_unit_test room source)
  if(NOT XI_TESTS)
    return()
  endif()
  cmake_parse_arguments(R "" "" "LIBS" ${ARGN})
  get_filename_component(name ${source} NAME_WE)
  string(REPLACE "/" "_" target xi_${room})
  set(exe ${target}_${name})
  add_executable(${exe} ${source})
  target_link_libraries(${exe} PRIVATE ${target} PkgConfig::CMOCKA ${R_LIBS})
  set_target_properties(${exe} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/test)
  add_test(NAME ${room}/${name} COMMAND ${exe})
  set_tests_properties(${room}/${name} PROPERTIES TIMEOUT 120)
endfunction()

# An engine plugin knows include/xinfer and its vendor's headers, nothing else.
function(xi_engine name)
  cmake_parse_arguments(R "" "" "SOURCES;LIBS;INCLUDES" ${ARGN})
  add_library(xinfer_engine_${name} MODULE ${R_SOURCES})
  target_include_directories(xinfer_engine_${name} PRIVATE ${CMAKE_SOURCE_DIR}/include)
  target_include_directories(xinfer_engine_${name} SYSTEM PRIVATE ${R_INCLUDES})
  get_target_property(flags xi_flags INTERFACE_COMPILE_OPTIONS)
  target_compile_options(xinfer_engine_${name} PRIVATE ${flags})
  target_compile_definitions(xinfer_engine_${name} PRIVATE _POSIX_C_SOURCE=200809L)
  target_link_libraries(xinfer_engine_${name} PRIVATE ${R_LIBS})
  target_link_options(xinfer_engine_${name} PRIVATE
    -Wl,--version-script=${CMAKE_SOURCE_DIR}/src/backends/engine.map)
  set_target_properties(xinfer_engine_${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${XI_PLUGIN_DIR})
  if(CMAKE_CURRENT_SOURCE_DIR MATCHES "^${CMAKE_SOURCE_DIR}/src/")
    add_dependencies(programs xinfer_engine_${name})
    # Beside bin, not in an architecture's folder: programs find engines in ../lib/xinfer.
    install(TARGETS xinfer_engine_${name} LIBRARY DESTINATION lib/xinfer)
  endif()
endfunction()
