// All of the lock core.
#pragma once

#include "arena.h"
#include "attach.h"
#include "deadlock.h"
#include "detect.h"
#include "latch.h"
#include "names.h"
#include "protocol.h"
#include "queue.h"
#include "rebuild.h"
#include "recovery.h"
#include "snapshot.h"
#include "tables.h"
#include "transfer.h"
#include "upgrade.h"
#include "wait.h"
#include "wait_graph.h"
