/* The engine's one public header, in its place. */
#include "../../../../../../kernels/embgemma.h"
