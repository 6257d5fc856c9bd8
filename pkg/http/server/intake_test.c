#include "http/server/intake.h"

#include "http/server/testing.h"

/* What comes of the bytes in pieces of a size: statuses in order, what is left over of them is dropped. */
static void describe(struct str bytes, size_t piece, struct buf *out, struct buf *answers, bool *open)
{
        BUF_AT_END struct buf in = BUF_INIT(1 << 20);
        struct http_intake k;
        size_t used;

        http_intake_init(&k, &case_limits);
        *open = true;
        while (*open && bytes.n) {
                size_t n = MIN_OF(piece, bytes.n);

                buf_add(&in, bytes.p, n);
                bytes.p += n;
                bytes.n -= n;
                do {
                        /* Exactly as large as what is offered, so that reading beyond it is seen. */
                        FREE_AT_END char *exact = malloc(in.n + !in.n);

                        memcpy(exact, in.p, in.n);
                        if (http_intake_feed(&k, (struct str){ exact, in.n }, &used) < 0) {
                                buf_printf(out, "%d ",
                                           k.refusal == HTTP_HEADER_TOO_LARGE
                                                   ? 494
                                                   : http_refusal_status(k.refusal));
                                assert_non_null(k.why);
                                *open = false;
                                break;
                        }
                        buf_drop(&in, used);
                        if (!http_intake_complete(&k))
                                continue;
                        buf_text(out, "200 ");
                        case_answer(&k.codec.message, answers);
                        *open = k.codec.message.keep_alive;
                        http_intake_next(&k);
                } while (*open && used && in.n);
        }
        *open = *open && k.state == INTAKE_BEFORE;
        http_intake_done(&k);
}

static void cases_in_pieces_of_every_size(void **state UNUSED)
{
        for (size_t i = 0; i < cases_n; i++) {
                const struct http_case *c = &cases[i];
                BUF_AT_END struct buf expected = BUF_INIT(1000), found = BUF_INIT(1000),
                                      answers = BUF_INIT(65536);
                size_t most = MIN_OF(c->bytes.n, (size_t)200);

                buf_text(&expected, "");
                for (size_t j = 0; j < c->statuses_n; j++)
                        buf_printf(&expected, "%d ", c->statuses[j]);
                for (size_t piece = 1; piece <= most + 1; piece++) {
                        bool open;

                        buf_reset(&found);
                        buf_reset(&answers);
                        buf_add(&found, "", 0);
                        buf_add(&answers, "", 0);
                        describe(buf_view(&c->bytes), piece > most ? SIZE_MAX : piece, &found, &answers,
                                 &open);
                        if (strcmp(expected.p, found.p) != 0 || open != (c->end == CASE_OPEN))
                                fail_msg("%s, in pieces of %zu: \"%s\" %s instead of \"%s\"", c->name, piece,
                                         found.p, open ? "open" : "not open", expected.p);
                        for (size_t j = 0; j < c->contains_n; j++)
                                if (strncmp(c->contains[j], "Connection", 10) != 0 &&
                                    !strstr(answers.p, c->contains[j]))
                                        fail_msg("%s: \"%s\" is not in \"%s\"", c->name, c->contains[j],
                                                 answers.p);
                }
        }
}

/* CORPUS=FOLDER: each case as a file, for fuzz/. */
static void cases_become_a_corpus(void **state UNUSED)
{
        const char *folder = getenv("CORPUS");

        for (size_t i = 0; folder && i < cases_n; i++) {
                char path[512];
                FILE *f;

                (void)snprintf(path, sizeof(path), "%s/%s", folder, cases[i].name);
                for (char *p = path + strlen(folder) + 1; *p; p++)
                        *p = *p == ' ' || *p == '/' || *p == ',' ? '-' : *p;
                f = fopen(path, "w");
                assert_non_null(f);
                assert_int_equal(fwrite(cases[i].bytes.p, 1, cases[i].bytes.n, f), cases[i].bytes.n);
                assert_int_equal(fclose(f), 0);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(cases_in_pieces_of_every_size),
                cmocka_unit_test(cases_become_a_corpus),
        };
        return cmocka_run_group_tests_name("intake", tests, cases_load, cases_free);
}
