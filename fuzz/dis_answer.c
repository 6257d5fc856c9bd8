/* What DIS answers, whatever it says: to each kind of question. */
#include "source/dis/dis.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char stream[] = "orders", app[] = "app";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static const enum reader_job_kind kinds[] = { READER_LOAD, READER_FETCH, READER_SAVE };
        const struct reader_config config = { .page_bytes = 1024, .poll_min = 1, .poll_max = 1 };
        struct dis_spec spec = { .stream = stream, .app = app, .start = DIS_LATEST, .max_fetch_bytes = 1024 };
        struct services services = { .clock = &system_clock };
        struct dis d = { .spec = &spec, .poller.services = &services };
        struct partition at = { .name = "shardId-0000000000", .at = -1, .end = -1, .cursor.max = 4096 };
        struct partition *p, *next;
        struct error err = { 0 };

        if (!size)
                return 0;
        at.load = data[0] & 1;
        at.for_records = data[0] & 4;
        at.at = (data[0] & 8) - 1;
        for (size_t i = 0; i < COUNT_OF(kinds); i++)
                (void)poller_answer(&d.poller, &dis_ops, kinds[i], &at,
                                    (struct str){ (const char *)data + 1, size - 1 }, &err);
        if (reader_new(&d.poller.reader, &config, 1, &err) < 0)
                abort();
        for (int i = 0; i < 2; i++) { /* the list, and then what the app has of it */
                d.first = i ? FIRST_STATE : FIRST_LIST;
                *d.after = 0;
                (void)dis_discovered(&d.poller, (struct str){ (const char *)data + 1, size - 1 }, &err);
        }
        (void)reader_free(d.poller.reader);
        HASH_ITER(hh, d.partitions, p, next)
        {
                HASH_DEL(d.partitions, p);
                free(p);
        }
        buf_done(&at.cursor);
        return 0;
}
