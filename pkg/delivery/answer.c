#include "delivery/delivery.h"

enum answer_kind answer_kind_of(int status)
{
        if (status >= 200 && status <= 299)
                return ANSWER_ACCEPTED;
        if (status >= 500 && status <= 599)
                return ANSWER_RETRY;
        switch (status) {
        case 404: /* a pod that is not ready yet */
        case 408:
        case 409:
        case 425:
        case 429: return ANSWER_RETRY;
        case 413: return ANSWER_TOO_LARGE;
        default: return ANSWER_FINAL;
        }
}

bool answer_is_overload(int status)
{
        switch (status) {
        case 0:
        case 408:
        case 429:
        case 502:
        case 503:
        case 504: return true;
        default: return false;
        }
}
