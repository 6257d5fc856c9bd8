/* How a source is, as its events say and the status shows. */
#pragma once

enum source_state {
        SOURCE_CONNECTING,
        SOURCE_CONNECTED,
        SOURCE_IDLE,
        SOURCE_STANDBY,
        SOURCE_DISCONNECTED,
        SOURCE_FAILED,
        SOURCE_REMOVED, /* what it had outside is gone */
        SOURCE_STATE_MAX
};
const char *source_state_name(enum source_state);
