/* What the metadata service, IAM, STS and CCE answer when keys are asked for: either there are keys that can
 * be signed with, or there is a reason and another request later. */
#include "demand.h"
#include "huawei/credentials.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* 2026-01-01T00:00:00Z */
static const usec NEW_YEAR = 1767225600 * USEC_SEC;

static int read_any(void *cookie, struct buf *access, struct buf *secret, struct buf *token,
                    struct error *err)
{
        (void)cookie, (void)token, (void)err;
        buf_text(access, "AKEXAMPLE");
        buf_text(secret, "SKEXAMPLE");
        return 0;
}

static bool printable(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] < '!' || s.p[i] > '~')
                        return false;
        return s.n > 0;
}

/* The steps of one conversation; each line of the input is an answer, its first byte the status. */
static void converse(struct credentials *c, struct str rest)
{
        static const int statuses[] = { 200, 401, 404, 503, 429, 403, 500, 201 };
        usec now = USEC_HOUR, wall = NEW_YEAR;
        struct credentials_request q;
        struct cloud_keys keys;
        struct error err;

        for (int step = 0; step < 8 && rest.n; step++) {
                struct str line = str_cut(&rest, '\n');
                int status = line.n ? statuses[(unsigned char)line.p[0] % COUNT_OF(statuses)] : 200;

                DEMAND(credentials_next(c, now, wall, &q));
                DEMAND(q.path.n && q.path.p[0] == '/');
                credentials_answered(c, status, (struct str){ line.p + !!line.n, line.n - !!line.n },
                                     (usec)line.n * USEC_SEC, now, wall);
                if (credentials_keys(c, now, wall, &keys, &err) == 0) {
                        usec renewal = credentials_deadline(c, now, wall);

                        DEMAND(printable(keys.access) && printable(keys.secret) && printable(keys.token));
                        DEMAND(renewal >= now && renewal != USEC_NEVER);
                        wall += renewal - now;
                        now = renewal;
                } else {
                        DEMAND(err.text[0] && credentials_deadline(c, now, wall) != USEC_NEVER);
                        wall += credentials_deadline(c, now, wall) - now;
                        now += credentials_deadline(c, now, wall) - now;
                }
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static const char *const endpoints[] = { NULL, "https://iam.test", "http://169.254.169.254",
                                                 "https://sts.test", "http://127.0.0.1/v1/keys" };
        struct credentials_config config = { .read = read_any,
                                             .agency = "reader",
                                             .domain = "example",
                                             .provider_urn = "p",
                                             .agency_urn = "a",
                                             .seed = 1 };
        struct credentials *c;
        struct error err;

        if (!size)
                return 0;
        config.kind = (enum credentials_kind)(CREDENTIALS_AGENCY + data[0] % 4);
        config.endpoint = endpoints[config.kind];
        DEMAND(credentials_new(&c, &config, &err) == 0);
        converse(c, (struct str){ (const char *)data + 1, size - 1 });
        (void)credentials_free(c);
        return 0;
}
