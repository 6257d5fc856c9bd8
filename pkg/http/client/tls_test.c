/* Certificates: who is trusted, who asks for one, what is said when it goes wrong, and that files that change
 * are read again. */
#include <curl/curl.h>
#include <sys/stat.h>

#include "http/client/testing.h"

static struct identity authority, other, leaf, renewed, expired, stranger, user;
static struct buf authority_pem;
static char folder[] = "/tmp/sluice-tls-XXXXXX", ca_file[64], cert_file[64], key_file[64];

static int group_setup(void **state UNUSED)
{
        authority = identity_new((struct identity_config){
                .name = "test authority", .authority = true, .key_usage = IDENTITY_SIGNS });
        other = identity_new((struct identity_config){
                .name = "another authority", .authority = true, .key_usage = IDENTITY_SIGNS });
        leaf = identity_new((struct identity_config){
                .issuer = &authority, .name = "localhost", .alternatives = "DNS:localhost,IP:127.0.0.1" });
        renewed = identity_new((struct identity_config){ .issuer = &authority, .name = "user again" });
        expired = identity_new(
                (struct identity_config){ .issuer = &authority,
                                          .name = "localhost",
                                          .alternatives = "IP:127.0.0.1",
                                          .until = clock_wall(&system_clock) / USEC_SEC - 86400 });
        stranger = identity_new((struct identity_config){
                .issuer = &authority, .name = "elsewhere", .alternatives = "DNS:elsewhere.example" });
        user = identity_new((struct identity_config){ .issuer = &authority, .name = "user" });
        identity_pem(&authority, false, &authority_pem);
        assert_non_null(mkdtemp(folder));
        (void)snprintf(ca_file, sizeof(ca_file), "%s/ca.pem", folder);
        (void)snprintf(cert_file, sizeof(cert_file), "%s/cert.pem", folder);
        (void)snprintf(key_file, sizeof(key_file), "%s/key.pem", folder);
        identity_write(&authority, false, ca_file);
        return 0;
}

static int group_teardown(void **state UNUSED)
{
        struct identity *all[] = { &authority, &other, &leaf, &renewed, &expired, &stranger, &user };

        for (size_t i = 0; i < COUNT_OF(all); i++)
                identity_done(all[i]);
        buf_done(&authority_pem);
        (void)unlink(ca_file);
        (void)unlink(cert_file);
        (void)unlink(key_file);
        (void)rmdir(folder);
        return 0;
}

static int setup(void **state UNUSED)
{
        identity_write(&user, false, cert_file);
        identity_write(&user, true, key_file);
        return client_setup();
}

static int teardown(void **state UNUSED) { return client_teardown(); }

static void serve(const struct identity *i)
{
        server.tls = server_tls(&server, i);
        server_listen(&server, "127.0.0.1", 0);
        (void)snprintf(url, sizeof(url), "https://127.0.0.1:%u/f", server.port);
}

static const struct http_settings settings = { .ca = "the setting of the CA",
                                               .client_cert = "the setting of the certificate",
                                               .any_host = "any: true" };

static void trust(struct http_tls tls)
{
        if (!tls.ca_file && !tls.ca_pem.n)
                tls.ca_pem = buf_view(&authority_pem);
        aim((struct http_target_config){ .tls = tls, .settings = &settings });
}

static void expect_answer(void)
{
        if (request()->failed)
                fail_msg("%s", done[done_n - 1].c.error.text);
}

static void expect_failure(const char *say)
{
        const struct completion *c = request();

        assert_true(c->failed && c->error.retry);
        assert_int_equal(c->error.kind, ERROR_UNREACHABLE);
        assert_non_null(strstr(c->error.text, url));
        if (!strstr(c->error.text, say))
                fail_msg("\"%s\" does not say \"%s\"", c->error.text, say);
}

static void an_authority_may_be_bytes_or_a_file(void **state UNUSED)
{
        serve(&leaf);
        trust((struct http_tls){ 0 });
        expect_answer();
        target = http_target_free(target);
        trust((struct http_tls){ .ca_file = ca_file });
        expect_answer();
}

static void an_unknown_authority_is_not_trusted(void **state UNUSED)
{
        BUF_AT_END struct buf pem = BUF_INIT(65536);

        serve(&leaf);
        identity_pem(&other, false, &pem);
        trust((struct http_tls){ .ca_pem = buf_view(&pem) });
        expect_failure("not trusted: give its CA in the setting of the CA");
        assert_false(done[0].c.maybe_processed);
        target = http_target_free(target);
        aim((struct http_target_config){ .settings = &settings }); /* the system's authorities */
        expect_failure("not trusted: give its CA in the setting of the CA");
        assert_int_equal(server.requests, 0);
}

static void a_missing_ca_file_is_named(void **state UNUSED)
{
        serve(&leaf);
        trust((struct http_tls){ .ca_file = "/nonexistent/ca.pem" });
        expect_failure("see the setting of the CA");
}

/* Whoever has no names for its settings hears what is wrong alone. */
static void without_settings_none_is_named(void **state UNUSED)
{
        serve(&leaf);
        aim((struct http_target_config){ .tls.ca_file = "/nonexistent/ca.pem" });
        assert_true(request()->failed);
        assert_string_equal(strstr(done[done_n - 1].c.error.text, "the CA"),
                            "the CA in /nonexistent/ca.pem can't be read");
        target = http_target_free(target);
        aim((struct http_target_config){ 0 });
        expect_failure("its certificate is not trusted (");
}

static void another_name_is_refused(void **state UNUSED)
{
        serve(&stranger);
        trust((struct http_tls){ 0 });
        expect_failure("for another name: say any: true if that is meant");
        target = http_target_free(target);
        trust((struct http_tls){ .server_name = "elsewhere.example" });
        expect_answer();
        target = http_target_free(target);
        trust((struct http_tls){ .any_host = true });
        expect_answer();
}

/* As in localhost., which resolvers look up as it is: no certificate has the dot, nor SNI. */
static void a_dot_at_the_end_is_not_of_the_name(void **state UNUSED)
{
        serve(&leaf);
        trust((struct http_tls){ .server_name = "localhost." });
        expect_answer();
}

static void an_expired_certificate_is_named(void **state UNUSED)
{
        serve(&expired);
        trust((struct http_tls){ 0 });
        expect_failure("has expired: renew it");
        assert_true(done[0].c.error.elsewhere);
}

static void demand_client(const struct identity *ca)
{
        X509_STORE *store = SSL_CTX_get_cert_store(server.tls);

        assert_int_equal(X509_STORE_add_cert(store, ca->cert), 1);
        SSL_CTX_set_verify(server.tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
}

static void a_client_certificate_is_demanded(void **state UNUSED)
{
        static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };

        serve(&leaf);
        demand_client(&authority);
        for (size_t i = 0; i < COUNT_OF(versions); i++) {
                (void)SSL_CTX_set_max_proto_version(server.tls, versions[i]);
                trust((struct http_tls){ 0 });
                expect_failure("client certificate: give one in the setting of the certificate");
                target = http_target_free(target);
                trust((struct http_tls){ .client_cert_file = cert_file, .client_key_file = key_file });
                expect_answer();
                target = http_target_free(target);
        }
        trust((struct http_tls){ .client_cert_file = "/nonexistent/cert.pem", .client_key_file = key_file });
        expect_failure("see the setting of the certificate");
}

static void both_versions_are_spoken(void **state UNUSED)
{
        static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };

        serve(&leaf);
        for (size_t i = 0; i < COUNT_OF(versions); i++) {
                (void)SSL_CTX_set_min_proto_version(server.tls, versions[i]);
                (void)SSL_CTX_set_max_proto_version(server.tls, versions[i]);
                trust((struct http_tls){ 0 });
                expect_answer();
                assert_int_equal(SSL_version(server.peers[server.peers_n - 1].ssl), versions[i]);
                target = http_target_free(target);
                (void)SSL_CTX_set_min_proto_version(server.tls, 0);
        }
}

static void close_after(struct call *c) { reply(c, 200, "Connection: close\r\n", STR("ok")); }

static void sessions_are_resumed(void **state UNUSED)
{
        static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };

        serve(&leaf);
        server.handle = close_after;
        for (size_t i = 0; i < COUNT_OF(versions); i++) {
                size_t before = server.peers_n;

                (void)SSL_CTX_set_max_proto_version(server.tls, versions[i]);
                trust((struct http_tls){ 0 });
                for (int k = 0; k < 3; k++)
                        expect_answer();
                assert_int_equal(server.peers_n, before + 3);
                assert_false(server.peers[before].resumed);
                assert_true(server.peers[before + 1].resumed);
                assert_true(server.peers[before + 2].resumed);
                target = http_target_free(target);
        }
}

static void common_name(const struct peer *p, char *out, int n)
{
        X509 *cert = SSL_get1_peer_certificate(p->ssl);

        assert_non_null(cert);
        (void)X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, out, n);
        X509_free(cert);
}

static bool one_is_open(void)
{
        return server.peers_n >= 2 && server_open(&server) == 1 && http_target_connections(target) == 1;
}

/* No old identity is resumed, and there always is a connection. */
static void a_renewed_certificate_is_used(void **state UNUSED)
{
        char name[64];

        serve(&leaf);
        demand_client(&authority);
        trust((struct http_tls){ .client_cert_file = cert_file, .client_key_file = key_file });
        expect_answer();
        common_name(&server.peers[0], name, sizeof(name));
        assert_string_equal(name, "user");
        identity_write(&renewed, false, cert_file);
        identity_write(&renewed, true, key_file);
        http_target_refresh(target);
        run_until(one_is_open);
        expect_answer();
        assert_int_equal(server.peers_n, 2);
        common_name(&server.peers[1], name, sizeof(name));
        assert_string_equal(name, "user again");
        assert_false(server.peers[1].resumed);
}

static struct call *held[4];
static size_t held_n;
static void hold(struct call *c) { held[held_n++] = c; }
static bool one_held(void) { return held_n >= 1; }
static bool two_held(void) { return held_n >= 2; }
static bool first_is_gone(void) { return server.peers[0].fd < 0; }

/* A new connection finds that the files are others: the old one is replaced, too. */
static void a_changed_file_is_noticed(void **state UNUSED)
{
        held_n = 0;
        serve(&leaf);
        server.handle = hold;
        trust((struct http_tls){ .client_cert_file = cert_file, .client_key_file = key_file });
        submit(1);
        run_until(one_held);
        identity_write(&renewed, false, cert_file);
        identity_write(&renewed, true, key_file);
        submit(2);
        run_until(two_held);
        reply(held[0], 200, "", STR("ok"));
        reply(held[1], 200, "", STR("ok"));
        await(2);
        run_until(first_is_gone);
        assert_false(done[0].c.failed || done[1].c.failed);
}

/* Two answers in one TLS record, or the second close behind: nothing is taken for the next request's. */
static void two_answers_in_one_record(struct call *c)
{
        peer_say(c->peer, STR("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 500 "
                              "No\r\nContent-Length: 0\r\n\r\n"));
}

static void two_answers_in_two_records(struct call *c)
{
        static const char one[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                          two[] = "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n";

        assert_true(SSL_write(c->peer->ssl, one, sizeof(one) - 1) > 0);
        assert_true(SSL_write(c->peer->ssl, two, sizeof(two) - 1) > 0);
}

static void what_tls_holds_is_seen(void **state UNUSED)
{
        serve(&leaf);
        trust((struct http_tls){ 0 });
        server.handle = two_answers_in_one_record;
        assert_int_equal(request()->status, 200);
        server.handle = two_answers_in_two_records;
        assert_int_equal(request()->status, 200);
        assert_int_equal(request()->status, 200);
        assert_int_equal(request()->status, 200);
}

static bool refuse_in_plain(struct peer *p, struct str bytes UNUSED)
{
        peer_say(p, STR("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"));
        return true;
}

static void no_tls_at_all_is_named(void **state UNUSED)
{
        server_listen(&server, "127.0.0.1", 0);
        (void)snprintf(url, sizeof(url), "https://127.0.0.1:%u/f", server.port);
        trust((struct http_tls){ 0 });
        expect_failure("connect to");
        server.raw = refuse_in_plain;
        expect_failure("the server does not speak TLS here: is the URL to begin with http://?");
        server.raw = NULL;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(an_authority_may_be_bytes_or_a_file, setup, teardown),
                cmocka_unit_test_setup_teardown(an_unknown_authority_is_not_trusted, setup, teardown),
                cmocka_unit_test_setup_teardown(a_missing_ca_file_is_named, setup, teardown),
                cmocka_unit_test_setup_teardown(without_settings_none_is_named, setup, teardown),
                cmocka_unit_test_setup_teardown(another_name_is_refused, setup, teardown),
                cmocka_unit_test_setup_teardown(a_dot_at_the_end_is_not_of_the_name, setup, teardown),
                cmocka_unit_test_setup_teardown(an_expired_certificate_is_named, setup, teardown),
                cmocka_unit_test_setup_teardown(a_client_certificate_is_demanded, setup, teardown),
                cmocka_unit_test_setup_teardown(both_versions_are_spoken, setup, teardown),
                cmocka_unit_test_setup_teardown(sessions_are_resumed, setup, teardown),
                cmocka_unit_test_setup_teardown(a_renewed_certificate_is_used, setup, teardown),
                cmocka_unit_test_setup_teardown(a_changed_file_is_noticed, setup, teardown),
                cmocka_unit_test_setup_teardown(what_tls_holds_is_seen, setup, teardown),
                cmocka_unit_test_setup_teardown(no_tls_at_all_is_named, setup, teardown),
        };
        int result;

        filter_tests();
        result = cmocka_run_group_tests_name("tls", tests, group_setup, group_teardown);

        curl_global_cleanup();
        return result;
}
