#include "http/wire/tls.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Two sessions over a pair of buffers; what the peer writes waits until we read it. */
static struct {
        SSL_CTX *server, *client;
        SSL *ours, *peers;
} s;

static void make_certificate(SSL_CTX *x)
{
        EVP_PKEY *key = EVP_EC_gen("P-256");
        X509 *certificate = X509_new();

        assert_non_null(key);
        assert_non_null(X509_gmtime_adj(X509_getm_notBefore(certificate), 0));
        assert_non_null(X509_gmtime_adj(X509_getm_notAfter(certificate), 3600));
        assert_int_equal(X509_set_pubkey(certificate, key), 1);
        assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
        assert_int_equal(SSL_CTX_use_certificate(x, certificate), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey(x, key), 1);
        X509_free(certificate);
        EVP_PKEY_free(key);
}

static int setup(void **state UNUSED)
{
        s.server = SSL_CTX_new(TLS_server_method());
        s.client = SSL_CTX_new(TLS_client_method());
        tls_context(s.server);
        tls_context(s.client);
        make_certificate(s.server);
        return 0;
}

static int teardown(void **state UNUSED)
{
        SSL_free(s.ours);
        SSL_free(s.peers);
        SSL_CTX_free(s.server);
        SSL_CTX_free(s.client);
        return 0;
}

static void meet(bool as_server)
{
        SSL *server = SSL_new(s.server), *client = SSL_new(s.client);
        BIO *left, *right;
        ssize_t r = TLS_AGAIN;

        assert_int_equal(BIO_new_bio_pair(&left, 1 << 20, &right, 1 << 20), 1);
        SSL_set_bio(server, left, left);
        SSL_set_bio(client, right, right);
        SSL_set_accept_state(server);
        SSL_set_connect_state(client);
        for (int i = 0; i < 8 && r != 1; i++) {
                (void)tls_handshake(client);
                r = tls_handshake(server);
        }
        assert_int_equal(r, 1);
        s.ours = as_server ? server : client;
        s.peers = as_server ? client : server;
}

static void peer_changes_keys(int n)
{
        while (n-- > 0) {
                assert_int_equal(SSL_key_update(s.peers, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
                assert_int_equal(SSL_do_handshake(s.peers), 1);
        }
}

static void expect_data(void)
{
        char space[16];

        assert_int_equal(tls_write(s.peers, "data", 4), 4);
        assert_int_equal(tls_read(s.ours, space, sizeof(space)), 4);
        assert_memory_equal(space, "data", 4);
}

static void records_without_data_are_passed_by(void **state UNUSED)
{
        char byte;

        for (int as_server = 0; as_server <= 1; as_server++) {
                meet(as_server);
                expect_data(); /* behind the session tickets, where there are some */
                assert_int_equal(tls_read(s.ours, &byte, 1), TLS_AGAIN);
                for (int i = 0; i < 50; i++) {
                        peer_changes_keys(4);
                        expect_data();
                }
                peer_changes_keys(4);
                assert_int_equal(tls_read(s.ours, &byte, 1), TLS_AGAIN);
                assert_int_equal(SSL_pending(s.ours), 0);
                expect_data();
                SSL_free(s.ours);
                SSL_free(s.peers);
                s.ours = s.peers = NULL;
        }
}

static void a_peer_that_sends_nothing_else_is_broken(void **state UNUSED)
{
        char byte;

        for (int as_server = 0; as_server <= 1; as_server++) {
                meet(as_server);
                peer_changes_keys(10000);
                assert_int_equal(tls_read(s.ours, &byte, 1), TLS_BROKEN);
                assert_string_equal(tls_reason("none"), "too many key updates");
                assert_true(BIO_pending(SSL_get_rbio(s.ours)) > 100000); /* it was not read to the end */
                SSL_free(s.ours);
                SSL_free(s.peers);
                s.ours = s.peers = NULL;
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(records_without_data_are_passed_by, setup, teardown),
                cmocka_unit_test_setup_teardown(a_peer_that_sends_nothing_else_is_broken, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
