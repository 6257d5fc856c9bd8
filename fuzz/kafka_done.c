/* What goes along with a committed offset, behind its checksum, which anybody can make: whatever it says is
 * refused, or comes back as it was. Then the same bytes as they would come from a broker. */
#include "fuzz/demand.h"

#include "source/kafka/done.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand_order(const struct done *d, int64_t base)
{
        for (uint32_t i = 0; i < d->n; i++) {
                DEMAND(d->runs[i].from < d->runs[i].to && d->runs[i].from >= base);
                DEMAND(!i || d->runs[i - 1].to < d->runs[i].from);
        }
}

static void demand_same(const struct done *a, const struct done *b)
{
        DEMAND(a->n == b->n && (!a->n || memcmp(a->runs, b->runs, a->n * sizeof(*a->runs)) == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        BUF_AT_END struct buf text = BUF_INIT(BUF_DEFAULT_MAX);
        struct done d = { 0 }, again = { 0 };
        const int64_t base = size && data[0] & 2 ? INT64_MAX - 1000 : 1000;
        struct str body = { (const char *)data + 1, size ? size - 1 : 0 };

        (void)done_read(&d, base, (struct str){ (const char *)data, size });
        done_clear(&d);
        if (!size || !(data[0] & 1 ? read_runs(&d, base, body) : read_bits(&d, base, body))) {
                done_clear(&d);
                return 0;
        }
        demand_order(&d, base);
        done_write(&d, base, (size_t)60000, &text);
        DEMAND(!text.failed && (text.n || !d.n));
        if (d.n && d.runs[d.n - 1].to - base < 8 * 40000) { /* all of it has room */
                DEMAND(done_read(&again, base, buf_view(&text)));
                demand_same(&d, &again);
        }
        done_clear(&d);
        done_clear(&again);
        return 0;
}
