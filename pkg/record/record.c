#include "record/record.h"

const char *outcome_name(enum outcome outcome)
{
        static const char *const names[OUTCOME_MAX] = { [OUTCOME_ACCEPTED] = "Accepted",
                                                        [OUTCOME_DEAD_LETTERED] = "DeadLettered",
                                                        [OUTCOME_DROPPED] = "Dropped",
                                                        [OUTCOME_FILTERED] = "Filtered",
                                                        [OUTCOME_RELEASED] = "Released" };

        return names[outcome];
}
