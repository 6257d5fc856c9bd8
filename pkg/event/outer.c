#include "event/outer.h"

#include <inttypes.h>
#include <openssl/sha.h>
#include <stdio.h>

#include "base/clock.h"

/* An id as a UUID: the same each time. */
static void request_id(struct str id, char out[37])
{
        unsigned char hash[SHA256_DIGEST_LENGTH];

        SHA256((const unsigned char *)id.p, id.n, hash);
        hash[6] = (unsigned char)(0x80 | (hash[6] & 0xf)); /* version 8: bits of one's own */
        hash[8] = (unsigned char)(0x80 | (hash[8] & 0x3f));
        uuid_text(hash, out);
}

/* "Wed Nov 15 2017 12:00:00 GMT+0800 (CST)" */
static void date_text(usec wall, char *out, size_t size)
{
        static const char days[] = "ThuFriSatSunMonTueWed", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
        int64_t seconds = wall / USEC_SEC + 8 * 3600, day = seconds / 86400, year;
        int month, of_month, rest = (int)(seconds % 86400);

        civil_from_days(day, &year, &month, &of_month);
        (void)snprintf(out, size, "%.3s %.3s %02d %" PRId64 " %02d:%02d:%02d GMT+0800 (CST)",
                       days + 3 * (day % 7), months + 3 * (month - 1), of_month, year, rest / 3600,
                       rest / 60 % 60, rest % 60);
}

void outer_write(const struct trigger *t, struct str id, usec received, struct writer *w)
{
        char request[37], date[80];

        request_id(id, request);
        date_text(received, date, sizeof(date));
        writer_member_text(w, "functionname", t->function && t->function->name ? t->function->name : t->name);
        writer_member_text(w, "requestId", request);
        writer_member_text(w, "timestamp", date);
}
