#include "kafka/access.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* A folder of Secrets, and a cluster that names all there is. */
static struct bench {
        struct loop *loop;
        char folder[64];
        struct kafka_access access;
} b;

static char server[] = "broker:9093", secret_name[] = "kafka", user[] = "user", password[] = "password",
            ca[] = "ca", cert[] = "cert", key[] = "key";
static struct secret_ref user_ref = { secret_name, user }, password_ref = { secret_name, password },
                         ca_ref = { secret_name, ca }, cert_ref = { secret_name, cert },
                         key_ref = { secret_name, key };
static char *servers[] = { server };
static struct kafka_sasl_spec sasl = { KAFKA_SCRAM_SHA_256, &user_ref, &password_ref, NULL };
static struct tls_spec tls = { &ca_ref, &cert_ref, &key_ref, false };
static const struct kafka_cluster cluster = { { servers, 1 }, &sasl, &tls };

static void path_of(char path[160], const char *name)
{
        (void)snprintf(path, 160, "%s/kafka/%s", b.folder, name);
}

static void put(const char *name, const char *value)
{
        char path[160];
        FILE *f;

        path_of(path, name);
        f = fopen(path, "w");
        assert_non_null(f);
        assert_true(fputs(value, f) >= 0);
        assert_int_equal(fclose(f), 0);
}

static void take_away(const char *name)
{
        char path[160];

        path_of(path, name);
        assert_int_equal(unlink(path), 0);
}

static void on_stop(struct task *t UNUSED, usec now UNUSED) { loop_stop(b.loop); }

/* One pass, in which what changed is noticed. */
static void pass(void)
{
        struct task stop = { .turn = on_stop };

        loop_arm(b.loop, &stop, loop_now(b.loop) + 20 * USEC_MSEC);
        loop_run(b.loop);
        loop_forget(b.loop, &stop);
}

static int begin(void **state UNUSED)
{
        struct error err;
        char path[160];

        memset(&b, 0, sizeof(b));
        (void)snprintf(b.folder, sizeof(b.folder), "/tmp/kafka-access-XXXXXX");
        assert_non_null(mkdtemp(b.folder));
        path_of(path, "");
        assert_int_equal(mkdir(path, 0700), 0);
        for (size_t i = 0; i < 5; i++)
                put((const char *[]){ user, password, ca, cert, key }[i], "first");
        assert_int_equal(loop_new(&b.loop, &err), 0);
        assert_int_equal(kafka_access_open(&b.access,
                                           &(struct kafka_access_config){
                                                   .loop = b.loop, .cluster = &cluster, .secrets = b.folder },
                                           &err),
                         0);
        return 0;
}

static int end(void **state UNUSED)
{
        char command[100];

        kafka_access_done(&b.access);
        b.loop = loop_free(b.loop);
        (void)snprintf(command, sizeof(command), "rm -r %s", b.folder);
        return system(command);
}

static void assert_option(rd_kafka_conf_t *conf, const char *name, const char *expected)
{
        char value[200];
        size_t n = sizeof(value);

        assert_int_equal(rd_kafka_conf_get(conf, name, value, &n), RD_KAFKA_CONF_OK);
        assert_string_equal(value, expected);
}

static void all_of_it_is_configured(void **state UNUSED)
{
        rd_kafka_conf_t *conf = rd_kafka_conf_new();
        struct error err;
        char path[160];

        assert_int_equal(kafka_access_configure(&b.access, conf, &err), 0);
        assert_option(conf, "bootstrap.servers", "broker:9093");
        assert_option(conf, "security.protocol", "sasl_ssl");
        assert_option(conf, "sasl.mechanisms", "SCRAM-SHA-256");
        assert_option(conf, "sasl.username", "first");
        assert_option(conf, "sasl.password", "first");
        path_of(path, "ca");
        assert_option(conf, "ssl.ca.location", path);
        path_of(path, "cert");
        assert_option(conf, "ssl.certificate.location", path);
        path_of(path, "key");
        assert_option(conf, "ssl.key.location", path);
        assert_option(conf, "ssl.endpoint.identification.algorithm", "none");
        rd_kafka_conf_destroy(conf);
}

static void a_change_is_told_once_and_of_its_kind(void **state UNUSED)
{
        assert_int_equal(kafka_access_changed(&b.access), KAFKA_ACCESS_SAME);
        put("password", "second");
        pass();
        assert_int_equal(kafka_access_changed(&b.access), KAFKA_ACCESS_CREDENTIALS);
        assert_int_equal(kafka_access_changed(&b.access), KAFKA_ACCESS_SAME);
        put("user", "second");
        put("cert", "second");
        pass();
        assert_int_equal(kafka_access_changed(&b.access), KAFKA_ACCESS_CERTIFICATES);
        assert_int_equal(kafka_access_changed(&b.access), KAFKA_ACCESS_SAME);
}

/* A password that was there serves until it is refused; a file that is gone can't be read. */
static void what_is_missing_is_named(void **state UNUSED)
{
        BUF_AT_END struct buf lacks = BUF_INIT(1024);

        assert_false(kafka_access_lacks(&b.access, &lacks));
        take_away("password");
        pass();
        assert_false(kafka_access_lacks(&b.access, &lacks));
        take_away("key");
        pass();
        assert_true(kafka_access_lacks(&b.access, &lacks));
        assert_string_equal(lacks.p, "Secret kafka, key key, is missing or empty");
}

static void without_a_folder_of_secrets_it_is_refused(void **state UNUSED)
{
        struct kafka_access access = { 0 };
        struct error err;

        assert_int_equal(
                kafka_access_open(&access,
                                  &(struct kafka_access_config){ .loop = b.loop, .cluster = &cluster }, &err),
                -1);
        assert_non_null(strstr(err.text, "--secrets=DIR"));
}

static void what_a_broker_says_is_quoted_without_secrets(void **state UNUSED)
{
        static const struct {
                const char *said, *told;
        } cases[] = {
                ROW("SASL authentication error: no user alice-7 with s3cret,pw",
                    "SASL authentication error: no user *** with ***"),
                ROW("s3cret,pws3cret,pw", "******"),
                ROW("cut within s3cre", "cut within ***"),
                ROW("not s3cret, nor alice", "not s3cret, nor ***"),
                ROW("", ""),
        };

        put(user, "alice-7");
        put(password, "s3cret,pw");
        pass();
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                BUF_AT_END struct buf out = BUF_INIT(1024);

                kafka_access_quote(&b.access, cases[i].said, &out);
                assert_string_equal(out.p ? out.p : "", cases[i].told);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(all_of_it_is_configured, begin, end),
                cmocka_unit_test_setup_teardown(a_change_is_told_once_and_of_its_kind, begin, end),
                cmocka_unit_test_setup_teardown(what_is_missing_is_named, begin, end),
                cmocka_unit_test_setup_teardown(without_a_folder_of_secrets_it_is_refused, begin, end),
                cmocka_unit_test_setup_teardown(what_a_broker_says_is_quoted_without_secrets, begin, end),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
