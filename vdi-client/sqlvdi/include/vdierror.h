/*
 * For programs that include the error codes of the Virtual Device Interface by this name: they are in vdi.h.
 *
 * Licence: MIT or Apache-2.0, at your choice.
 */
#ifndef VDIERROR_H
#define VDIERROR_H

#include "vdi.h"

#endif
