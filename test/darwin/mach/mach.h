#pragma once

#include <stdint.h>

typedef uint32_t mach_port_t;
#define MACH_PORT_NULL 0
#define mach_task_self() 1u
int mach_port_deallocate(mach_port_t task, mach_port_t port);
