#include "http/server/testing.h"

static struct {
        size_t handled;
        struct buf subject, names;
        bool certificate;
} app;

static void handle(void *cookie UNUSED, struct http_call *c)
{
        app.handled++;
        app.subject.max = app.names.max = 4096;
        buf_reset(&app.subject);
        buf_reset(&app.names);
        app.certificate = http_call_certificate(c, &app.subject, &app.names);
        assert_true(http_call_tls(c));
        http_call_reply(c, 200, STR("text/plain"), (struct str){ 0 }, STR("served"));
}

static void serve_within(size_t buffered_max, struct http_server_tls tls)
{
        struct http_server_config config = { .address = "127.0.0.1:0",
                                             .head_max = 4096,
                                             .body_max = 1000,
                                             .buffered_max = buffered_max,
                                             .handle = handle,
                                             .tls = &tls };
        struct error err;

        tls.cert = tls.cert ? tls.cert : tls_cert;
        tls.key = tls.key ? tls.key : tls_key;
        if (http_server_new(&server, loop, &config, &err) < 0)
                fail_msg("%s", err.text);
}

static void serve(struct http_server_tls tls) { serve_within(0, tls); }

static int setup(void **state)
{
        struct error err;

        overdue = false;
        watchdog = (struct task){ .turn = too_late };
        memset(&app, 0, sizeof(app));
        return flavour_tls(state) || loop_new(&loop, &err);
}

static int teardown(void **state)
{
        server = http_server_free(server);
        loop = loop_free(loop);
        buf_done(&app.subject);
        buf_done(&app.names);
        return flavour_tls_done(state);
}

static const char request[] = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/* Whether a client with the context that stands now is served. */
static bool is_served(void)
{
        struct peer p;
        bool served;

        peer_connect(&p);
        peer_say(&p, request);
        served = strstr(peer_await(&p, "served", 1), "served") != NULL;
        peer_done(&p);
        return served;
}

static uint64_t failures(void)
{
        struct http_server_stats stats;

        http_server_stats(server, &stats);
        return stats.tls_failures;
}

static void versions(void **state UNUSED)
{
        static const struct {
                int version;
                bool served;
        } all[] = { { TLS1_1_VERSION, false }, { TLS1_2_VERSION, true }, { TLS1_3_VERSION, true } };

        serve((struct http_server_tls){ 0 });
        SSL_CTX_set_security_level(peer_tls, 0);
        for (size_t i = 0; i < COUNT_OF(all); i++) {
                (void)SSL_CTX_set_min_proto_version(peer_tls, all[i].version);
                (void)SSL_CTX_set_max_proto_version(peer_tls, all[i].version);
                assert_int_equal(is_served(), all[i].served);
        }
        assert_int_equal(failures(), 1);
}

static void alpn(void **state UNUSED)
{
        static const struct {
                const char *offered;
                bool served;
        } all[] = { { "\x08http/1.1", true }, { "\x02h2\x08http/1.1", true }, { "\x02h2", false } };

        serve((struct http_server_tls){ 0 });
        for (size_t i = 0; i < COUNT_OF(all); i++) {
                (void)SSL_CTX_set_alpn_protos(peer_tls, (const unsigned char *)all[i].offered,
                                              (unsigned)strlen(all[i].offered));
                assert_int_equal(is_served(), all[i].served);
        }
}

static void what_is_no_tls_is_closed(void **state UNUSED)
{
        struct peer p;

        serve((struct http_server_tls){ 0 });
        over_tls = false;
        peer_connect(&p);
        peer_say(&p, request);
        (void)peer_await(&p, NULL, 0);
        assert_int_equal(count_of(&p.in, "HTTP/1.1"), 0);
        peer_done(&p);
        over_tls = true;
        assert_int_equal(failures(), 1);
        assert_true(is_served());
}

static void a_handshake_has_its_time(void **state UNUSED)
{
        struct peer p;

        serve((struct http_server_tls){ .handshake_timeout = 300 * USEC_MSEC });
        over_tls = false;
        peer_connect(&p);
        assert_string_equal(peer_await(&p, NULL, 0), "");
        peer_done(&p);
        over_tls = true;
        assert_true(is_served());
}

/* ---- client certificates ------------------------------------------------ */

static struct identity authority(const char *name)
{
        return identity_new((struct identity_config){ .name = name, .authority = true });
}

static void clients_show_certificates(void **state UNUSED)
{
        struct identity ca = authority("ca"), stranger = authority("stranger"),
                        client = identity_new((struct identity_config){
                                .issuer = &ca,
                                .organization = "Sluice",
                                .name = "client, one",
                                .alternatives = "DNS:client.example,URI:spiffe://x/y,IP:192.0.2.1,"
                                                "IP:2001:db8::1,email:a@b.c" });

        identity_write(&ca, false, tls_ca);
        for (int required = 0; required < 2; required++) {
                serve((struct http_server_tls){ .client_ca = tls_ca, .client_required = required });
                app.certificate = false;
                assert_int_equal(is_served(), !required);
                assert_false(app.certificate);
                assert_int_equal(SSL_CTX_use_certificate(peer_tls, client.cert) +
                                         SSL_CTX_use_PrivateKey(peer_tls, client.key),
                                 2);
                assert_true(is_served());
                assert_true(app.certificate);
                assert_string_equal(app.subject.p, "CN=client\\, one,O=Sluice");
                assert_string_equal(
                        app.names.p,
                        "DNS:client.example\nURI:spiffe://x/y\nIP:192.0.2.1\nIP:2001:db8::1\nemail:a@b.c\n");
                assert_int_equal(SSL_CTX_use_certificate(peer_tls, stranger.cert) +
                                         SSL_CTX_use_PrivateKey(peer_tls, stranger.key),
                                 2);
                assert_false(is_served());
                SSL_CTX_free(peer_tls);
                peer_tls = SSL_CTX_new(TLS_client_method());
                server = http_server_free(server);
        }
        identity_done(&ca);
        identity_done(&client);
        identity_done(&stranger);
}

/* ---- files that change -------------------------------------------------- */

/* The name of the certificate that a new connection sees. */
static void name_seen(char *out, size_t n)
{
        struct peer p;
        X509 *certificate;

        peer_connect(&p);
        certificate = SSL_get1_peer_certificate(p.tls);
        assert_non_null(certificate);
        (void)X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, out, (int)n);
        X509_free(certificate);
        peer_done(&p);
}

static void a_second_passes(void)
{
        loop_arm(loop, &watchdog, loop_now(loop) + 1010 * USEC_MSEC);
        loop_run(loop);
        overdue = false;
}

static void a_changed_certificate_is_read(void **state UNUSED)
{
        struct identity next = authority("next");
        struct peer old;
        char name[64];

        serve((struct http_server_tls){ 0 });
        peer_connect(&old);
        name_seen(name, sizeof(name));
        assert_string_equal(name, "server");
        /* A certificate without its key: the old one is used until both are there. */
        identity_write(&next, false, tls_cert);
        a_second_passes();
        name_seen(name, sizeof(name));
        assert_string_equal(name, "server");
        identity_write(&next, true, tls_key);
        a_second_passes();
        name_seen(name, sizeof(name));
        assert_string_equal(name, "next");
        peer_say(&old, request); /* goes on */
        (void)peer_await(&old, "served", 1);
        peer_done(&old);
        identity_done(&next);
}

static bool is_answered(struct peer *p, size_t times)
{
        peer_say(p, request);
        (void)peer_await(p, "served", times);
        return count_of(&p->in, "served") == times;
}

/* The authorities vouch for those they vouch for now: connections that are open included, and whatever
 * becomes of their file. */
static void who_was_vouched_for_is_not_for_ever(void **state UNUSED)
{
        static const char *const ends[] = { "rm", "truncate -s 0", "sed -i s/CERTIFICATE/BROKEN/" };
        struct identity ca = authority("ca"), other = authority("other ca"),
                        client = identity_new((struct identity_config){ .issuer = &ca, .name = "client" });
        struct peer p;
        char command[160];

        for (size_t i = 0; i < COUNT_OF(ends); i++) {
                identity_write(&ca, false, tls_ca);
                serve((struct http_server_tls){ .client_ca = tls_ca, .client_required = true });
                assert_int_equal(SSL_CTX_use_certificate(peer_tls, client.cert) +
                                         SSL_CTX_use_PrivateKey(peer_tls, client.key),
                                 2);
                peer_connect(&p);
                assert_true(is_answered(&p, 1));
                (void)snprintf(command, sizeof(command), "%s %s", ends[i], tls_ca);
                assert_int_equal(system(command), 0);
                a_second_passes();
                assert_false(is_served());
                assert_false(is_answered(&p, 2));
                peer_done(&p);
                identity_write(&ca, false, tls_ca);
                a_second_passes();
                assert_true(is_served());
                peer_connect(&p);
                assert_true(is_answered(&p, 1));
                identity_write(&other, false, tls_ca);
                a_second_passes();
                assert_false(is_answered(&p, 2));
                assert_false(is_served());
                peer_done(&p);
                server = http_server_free(server);
        }
        identity_done(&ca);
        identity_done(&other);
        identity_done(&client);
}

/* One more authority beside the old one: nobody's connection ends for that. */
static void an_authority_that_is_added_ends_no_connection(void **state UNUSED)
{
        struct identity ca = authority("ca"), other = authority("other ca"),
                        client = identity_new((struct identity_config){ .issuer = &ca, .name = "client" });
        char command[320], path[80];
        struct peer p;

        (void)snprintf(path, sizeof(path), "%s/other", tls_folder);
        identity_write(&ca, false, tls_ca);
        identity_write(&other, false, path);
        serve((struct http_server_tls){ .client_ca = tls_ca, .client_required = true });
        assert_int_equal(SSL_CTX_use_certificate(peer_tls, client.cert) +
                                 SSL_CTX_use_PrivateKey(peer_tls, client.key),
                         2);
        peer_connect(&p);
        assert_true(is_answered(&p, 1));
        (void)snprintf(command, sizeof(command), "cat %s >>%s && rm %s", path, tls_ca, path);
        assert_int_equal(system(command), 0);
        a_second_passes();
        assert_true(is_answered(&p, 2));
        assert_true(is_served());
        peer_done(&p);
        identity_done(&ca);
        identity_done(&other);
        identity_done(&client);
}

static void files_that_cannot_be_used_are_named(void **state UNUSED)
{
        struct identity other = authority("other");
        char path[80];

        (void)snprintf(path, sizeof(path), "%s/other", tls_folder);
        identity_write(&other, true, path);
        const struct {
                struct http_server_tls tls;
                const char *said;
        } all[] = {
                ROW({ .cert = "/nowhere/tls.crt", .key = tls_key },
                    "read the certificate /nowhere/tls.crt: "),
                ROW({ .cert = tls_cert, .key = "/nowhere/tls.key" }, "read the key /nowhere/tls.key: "),
                ROW({ .cert = tls_key, .key = tls_key }, "read the certificate "),
                ROW({ .cert = tls_cert, .key = path }, "read the key "),
                ROW({ .cert = tls_cert, .key = tls_key, .client_ca = tls_key }, "read the clients' CA "),
        };

        for (size_t i = 0; i < COUNT_OF(all); i++) {
                struct http_server_config config = { .address = "127.0.0.1:0",
                                                     .head_max = 4096,
                                                     .body_max = 1000,
                                                     .handle = handle,
                                                     .tls = &all[i].tls };
                struct error err;

                assert_int_equal(http_server_new(&server, loop, &config, &err), -1);
                if (!strstr(err.text, all[i].said))
                        fail_msg("%s", err.text);
        }
        (void)unlink(path);
        identity_done(&other);
}

/* The head of a ClientHello of so many bytes; of the hello itself there is nothing. */
static void claim(struct peer *p, size_t bytes)
{
        const char head[] = { 22, 3, 1, 64, 0, 1, (char)(bytes >> 16), (char)(bytes >> 8), (char)bytes };

        over_tls = false;
        peer_connect(p);
        peer_say_bytes(p, (struct str){ head, sizeof(head) });
        over_tls = true;
}

static void a_hello_too_large_is_refused_before_it_comes(void **state UNUSED)
{
        struct peer small, large;

        serve((struct http_server_tls){ 0 });
        claim(&small, 16384);
        claim(&large, 131072);
        (void)peer_await(&large, NULL, 0);
        assert_int_equal(failures(), 1);
        assert_false(small.closed);
        assert_true(is_served());
        peer_done(&small);
        peer_done(&large);
}

enum { KEPT = 24, ROOM = 200 << 10 };

static void sessions_count_and_the_quietest_gives_way(void **state UNUSED)
{
        struct peer kept[KEPT];
        size_t closed = 0;

        serve_within(ROOM, (struct http_server_tls){ 0 });
        for (int i = 0; i < KEPT; i++) {
                peer_connect(&kept[i]);
                assert_true(kept[i].connected);
                assert_in_range(http_server_buffered(server), 15 * 1024, ROOM);
                peer_say(&kept[i], request);
                assert_non_null(strstr(peer_await(&kept[i], "served", 1), "served"));
        }
        (void)peer_await(&kept[0], NULL, 0);
        for (int i = 0; i < KEPT; i++)
                closed += kept[i].closed;
        assert_in_range(closed, KEPT / 2, KEPT - 4);
        assert_false(kept[KEPT - 1].closed);
        for (int i = 0; i < KEPT; i++)
                peer_done(&kept[i]);
}

static void who_shakes_hands_counts(void **state UNUSED)
{
        struct peer claims[KEPT];
        size_t closed = 0;

        serve_within(ROOM, (struct http_server_tls){ 0 });
        for (int i = 0; i < KEPT; i++)
                claim(&claims[i], 16384);
        assert_true(is_served());
        assert_in_range(http_server_buffered(server), 64 * 1024, ROOM);
        (void)peer_await(&claims[0], NULL, 0);
        for (int i = 0; i < KEPT; i++) {
                closed += claims[i].closed;
                peer_done(&claims[i]);
        }
        assert_in_range(closed, KEPT - 4, KEPT);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(versions, setup, teardown),
                cmocka_unit_test_setup_teardown(alpn, setup, teardown),
                cmocka_unit_test_setup_teardown(what_is_no_tls_is_closed, setup, teardown),
                cmocka_unit_test_setup_teardown(a_handshake_has_its_time, setup, teardown),
                cmocka_unit_test_setup_teardown(clients_show_certificates, setup, teardown),
                cmocka_unit_test_setup_teardown(a_changed_certificate_is_read, setup, teardown),
                cmocka_unit_test_setup_teardown(who_was_vouched_for_is_not_for_ever, setup, teardown),
                cmocka_unit_test_setup_teardown(an_authority_that_is_added_ends_no_connection, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(files_that_cannot_be_used_are_named, setup, teardown),
                cmocka_unit_test_setup_teardown(a_hello_too_large_is_refused_before_it_comes, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(sessions_count_and_the_quietest_gives_way, setup, teardown),
                cmocka_unit_test_setup_teardown(who_shakes_hands_counts, setup, teardown),
        };

        if (getenv("TEST_FILTER"))
                cmocka_set_test_filter(getenv("TEST_FILTER"));
        return cmocka_run_group_tests_name("TLS server", tests, NULL, NULL);
}
