/* Compiles the functions that follow for an instruction set, as CMakeLists.txt does by flags: EG_BEGIN(FEATURES) …
 * EG_END. The macros by which headers and sources ask for it are defined by those who include this. */
#ifndef EG_SWIFT_ISA_H
#define EG_SWIFT_ISA_H

#define EG_PRAGMA(text)    _Pragma(#text)
#define EG_BEGIN(features) EG_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define EG_END             _Pragma("clang attribute pop")

#endif
