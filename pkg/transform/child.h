/* What runs in a transform's child, and how the two ends speak: frames over a stream socket, in the machine's
 * byte order, since both ends are the same program. The parent sends one setup frame, then records; the child
 * says once whether the program compiles, then answers each record in turn, as soon as it is done. The child
 * owns its process. One thread. */
#pragma once

#include "base/base.h"

enum { CHILD_FD = 3 };                  /* the child's end of the socket; it has no other descriptor */
#define CHILD_NAME "sluice-transform"   /* argv[0] */
#define CHILD_COMMAND "transform-child" /* argv[1] */

enum frame_kind {
        FRAME_SETUP,   /* struct child_setup, then the program's text */
        FRAME_RECORD,  /* a JSON text */
        FRAME_READY,   /* the program compiles; nothing follows */
        FRAME_REFUSED, /* it does not: jq's words */
        FRAME_BROKEN,  /* the child could not be set up: why */
        FRAME_RESULT,  /* a JSON text */
        FRAME_FAILED,  /* why there is none */
};
struct frame {
        uint32_t size; /* of what follows the frame's head */
        uint32_t kind;
        uint64_t sequence; /* of the record; 0 for the others */
};
struct child_setup {
        uint64_t memory, output_max;
        usec timeout;
};

/* Of a record and of a start; the child cuts longer texts, so that no failure is larger than its frame may
 * be. */
enum { CHILD_TEXT_MAX = 400 };
/* How the child ends when it can't say more. */
enum { CHILD_EXIT_CLOSED = 0, CHILD_EXIT_MEMORY = 70, CHILD_EXIT_PROTOCOL = 71 };
#define CHILD_START_TIMEOUT (10 * USEC_SEC)

/* What `sluice transform-child` runs: never returns to the program's other code. The return value is the exit
 * code. */
int transform_child_main(void);
