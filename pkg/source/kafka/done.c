#include "source/kafka/done.h"

#include <zlib.h>

/* The text: MARK, then in Base64 one byte of the form, the form's own bytes, and the checksum of the offset,
 * the form and those (CRC-32, big endian). The forms, from the offset on: RUNS: by turns how many are not
 * done and how many are, as LEB128; BITS: a bit for each, the lowest of a byte first. */
static const char MARK[] = "sluice:";
enum { FORM_RUNS = 1, FORM_BITS = 2, CHECKSUM = 4, NUMBER_MOST = 10, TEXT_READ = 65536 };

/* ---- the runs ----------------------------------------------------------- */

void done_clear(struct done *d)
{
        free(d->runs);
        *d = (struct done){ 0 };
}

/* The first run that ends at the offset, or behind it. */
static uint32_t place(const struct done *d, int64_t offset)
{
        uint32_t low = 0, high = d->n;

        if (d->n && d->runs[d->n - 1].to < offset)
                return d->n;
        while (low < high) {
                uint32_t middle = low + (high - low) / 2;

                if (d->runs[middle].to < offset)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

bool done_has(const struct done *d, int64_t offset)
{
        uint32_t at;

        if (!d->n || offset >= d->runs[d->n - 1].to || offset < d->runs[0].from)
                return false;
        at = place(d, offset + 1);
        return at < d->n && d->runs[at].from <= offset;
}

static bool make_room(struct done *d)
{
        uint32_t cap = d->cap ? d->cap * 2 : 16;
        struct done_run *grown;

        if (d->n < d->cap)
                return true;
        grown = realloc(d->runs, cap * sizeof(*grown));
        if (!grown)
                return false;
        d->runs = grown;
        d->cap = cap;
        return true;
}

void done_add(struct done *d, int64_t from, int64_t to)
{
        uint32_t at = place(d, from), last = at;

        if (from >= to)
                return;
        if (at == d->n || d->runs[at].from > to) { /* touches none */
                if (!make_room(d))
                        return;
                memmove(d->runs + at + 1, d->runs + at, (d->n - at) * sizeof(*d->runs));
                d->runs[at] = (struct done_run){ from, to };
                d->n++;
                return;
        }
        while (last + 1 < d->n && d->runs[last + 1].from <= to)
                last++;
        d->runs[at].from = MIN_OF(d->runs[at].from, from);
        d->runs[at].to = MAX_OF(d->runs[last].to, to);
        memmove(d->runs + at + 1, d->runs + last + 1, (d->n - last - 1) * sizeof(*d->runs));
        d->n -= last - at;
}

void done_forget(struct done *d, int64_t below)
{
        uint32_t at = place(d, below + 1);

        if (at)
                memmove(d->runs, d->runs + at, (d->n - at) * sizeof(*d->runs));
        d->n -= at;
        if (d->n)
                d->runs[0].from = MAX_OF(d->runs[0].from, below);
}

int64_t done_until(const struct done *d, int64_t from)
{
        uint32_t at = place(d, from + 1);

        return at < d->n && d->runs[at].from <= from ? d->runs[at].to : from;
}

/* ---- writing ------------------------------------------------------------ */

static void number(struct buf *b, uint64_t value)
{
        for (; value > 0x7f; value >>= 7)
                buf_char(b, (char)(value | 0x80));
        buf_char(b, (char)value);
}

/* false: it has not the room for all of them. */
static bool write_runs(const struct done *d, int64_t base, size_t room, struct buf *b)
{
        int64_t at = base;

        for (uint32_t i = 0; i < d->n; i++) {
                size_t before = b->n;

                number(b, (uint64_t)(d->runs[i].from - at));
                number(b, (uint64_t)(d->runs[i].to - d->runs[i].from));
                at = d->runs[i].to;
                if (b->n > room) {
                        b->n = before;
                        return false;
                }
        }
        return true;
}

static void write_bits(const struct done *d, int64_t base, size_t room, struct buf *b)
{
        int64_t end = MIN_OF(d->runs[d->n - 1].to - base, (int64_t)room * 8);
        size_t from = b->n;

        if (!buf_reserve(b, (size_t)end / 8 + 1))
                return;
        b->n += (size_t)(end + 7) / 8;
        memset(b->p + from, 0, b->n - from);
        for (uint32_t i = 0; i < d->n && d->runs[i].from - base < end; i++)
                for (int64_t o = d->runs[i].from - base; o < MIN_OF(d->runs[i].to - base, end); o++)
                        b->p[from + (size_t)o / 8] = (char)(b->p[from + (size_t)o / 8] | 1 << (o & 7));
}

static uint32_t checksum(int64_t base, struct str bytes)
{
        uLong crc = crc32(0, NULL, 0);
        unsigned char offset[8];

        for (int i = 0; i < 8; i++)
                offset[i] = (unsigned char)((uint64_t)base >> (56 - 8 * i));
        crc = crc32(crc, offset, sizeof(offset));
        return (uint32_t)crc32(crc, (const unsigned char *)bytes.p, (uInt)bytes.n);
}

void done_write(const struct done *d, int64_t base, size_t most, struct buf *out)
{
        BUF_AT_END struct buf bytes = BUF_INIT(TEXT_READ);
        size_t coded = most > sizeof(MARK) - 1 ? (most - (sizeof(MARK) - 1)) / 4 * 3 : 0, room;
        uint32_t sum;

        if (!d->n || coded < 1 + CHECKSUM + NUMBER_MOST)
                return;
        room = coded - CHECKSUM;
        buf_char(&bytes, FORM_RUNS);
        if (!write_runs(d, base, room, &bytes) && bytes.n > 1) {
                buf_reset(&bytes);
                buf_char(&bytes, FORM_BITS);
                write_bits(d, base, room - 1, &bytes);
        }
        sum = checksum(base, buf_view(&bytes));
        for (int i = 0; i < CHECKSUM; i++)
                buf_char(&bytes, (char)(sum >> (24 - 8 * i)));
        if (bytes.failed)
                return;
        buf_text(out, MARK);
        buf_base64(out, buf_view(&bytes));
}

/* ---- reading ------------------------------------------------------------ */

/* false: there is none. */
static bool take_number(struct str *rest, int64_t *value)
{
        uint64_t v = 0;

        for (unsigned shift = 0; rest->n && shift < 63; shift += 7) {
                unsigned char c = (unsigned char)rest->p[0];

                *rest = (struct str){ rest->p + 1, rest->n - 1 };
                v |= (uint64_t)(c & 0x7f) << shift;
                if (!(c & 0x80)) {
                        *value = (int64_t)v;
                        return v <= INT64_MAX;
                }
        }
        return false;
}

static bool read_runs(struct done *d, int64_t base, struct str rest)
{
        int64_t at = base, gap, length, from, to;

        while (rest.n) {
                if (!take_number(&rest, &gap) || !take_number(&rest, &length) ||
                    __builtin_add_overflow(at, gap, &from) || __builtin_add_overflow(from, length, &to))
                        return false;
                done_add(d, from, to);
                at = to;
        }
        return true;
}

static bool read_bits(struct done *d, int64_t base, struct str bits)
{
        if (base > INT64_MAX - (int64_t)bits.n * 8)
                return false;
        for (size_t i = 0; i < bits.n * 8; i++)
                if (bits.p[i / 8] >> (i & 7) & 1)
                        done_add(d, base + (int64_t)i, base + (int64_t)i + 1);
        return true;
}

bool done_read(struct done *d, int64_t base, struct str text)
{
        BUF_AT_END struct buf bytes = BUF_INIT(TEXT_READ);
        const struct str mark = { MARK, sizeof(MARK) - 1 };
        struct str body, sum;
        uint32_t wanted;
        bool taken;

        done_clear(d);
        if (!str_starts(text, mark) || text.n > TEXT_READ ||
            !buf_unbase64(&bytes, (struct str){ text.p + mark.n, text.n - mark.n }) || bytes.n < 1 + CHECKSUM)
                return false;
        body = (struct str){ bytes.p, bytes.n - CHECKSUM };
        sum = (struct str){ bytes.p + body.n, CHECKSUM };
        wanted = checksum(base, body);
        for (size_t i = 0; i < CHECKSUM; i++)
                if ((unsigned char)sum.p[i] != (unsigned char)(wanted >> (24 - 8 * i)))
                        return false;
        body = (struct str){ body.p + 1, body.n - 1 };
        taken = bytes.p[0] == FORM_RUNS   ? read_runs(d, base, body)
                : bytes.p[0] == FORM_BITS ? read_bits(d, base, body)
                                          : false;
        if (!taken)
                done_clear(d);
        return taken;
}
