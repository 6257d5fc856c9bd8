/* What a database tells: BSON of a change, or of parts of one, each behind its length. */
#include "demand.h"
#include "json/check.h"
#include "source/dds/change.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct str rest = { (const char *)data, size };
        struct dds_reading g;

        dds_reading_init(&g);
        while (rest.n >= 4) {
                size_t n = bson_uint32(rest.p);
                struct str part = { rest.p, n < 4 || n > rest.n ? rest.n : n };
                struct error err = { 0 };
                int whole = dds_reading_take(&g, part, &err);

                DEMAND(whole >= 0 || err.text[0]);
                if (whole > 0) {
                        const struct dds_change *c = &g.change;
                        struct dds_position p = { 0 };

                        DEMAND(json_is_value(buf_view(&g.document), NULL));
                        DEMAND(json_is_value(buf_view(&g.token), NULL));
                        DEMAND(dds_position_read(buf_view(&g.position), &p));
                        DEMAND(json_is_value((struct str){ g.document.p + c->operation.at, c->operation.n },
                                             NULL));
                        DEMAND(!c->full.n ||
                               json_is_value((struct str){ g.document.p + c->full.at, c->full.n }, NULL));
                        buf_done(&p.token);
                }
                rest = (struct str){ rest.p + part.n, rest.n - part.n };
        }
        dds_reading_done(&g);
        return 0;
}
