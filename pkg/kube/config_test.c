#include "kube/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/kubeconfig-test-XXXXXX";

/* Loads a kubeconfig with this text. */
static int load(const char *text, struct kube_config *c, struct error *err)
{
        FILE *f = fopen(path, "w");

        assert_non_null(f);
        assert_true(fputs(text, f) >= 0);
        assert_int_equal(fclose(f), 0);
        return kube_config_load(c, path, err);
}

#define HEAD "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts:\n- {name: c, context: {cluster: k, user: u, namespace: shop}}\n"
#define CLUSTER "clusters:\n- {name: k, cluster: {server: \"https://127.0.0.1:6443/\", certificate-authority-data: Q0E=}}\n"

static void token_and_certificate(void **state UNUSED)
{
        struct kube_config c;
        struct error err;

        assert_int_equal(load(HEAD CLUSTER "users:\n- {name: u, user: {token: t0k, client-certificate-data: Q0VSVA==, client-key-data: S0VZ}}\n", &c, &err), 0);
        assert_string_equal(c.server, "https://127.0.0.1:6443");
        assert_string_equal(c.ca, "CA");
        assert_string_equal(c.token, "t0k");
        assert_string_equal(c.certificate, "CERT");
        assert_string_equal(c.key, "KEY");
        assert_string_equal(c.namespace_, "shop");
        assert_false(c.insecure);
        kube_config_done(&c);
}

static void files_are_relative_to_the_kubeconfig(void **state UNUSED)
{
        struct kube_config c;
        struct error err;
        const char *name = strrchr(path, '/') + 1;
        char text[1024];

        (void)snprintf(text, sizeof(text), HEAD "clusters:\n- {name: k, cluster: {server: \"https://h\", certificate-authority: %s, insecure-skip-tls-verify: true}}\nusers:\n- {name: u, user: {tokenFile: %s}}\n", name, path);
        assert_int_equal(load(text, &c, &err), 0);
        assert_non_null(strstr(c.ca, "kind: Config"));
        assert_non_null(strstr(c.token, "kind: Config"));
        assert_string_equal(c.ca_file, path);
        assert_true(c.insecure);
        kube_config_done(&c);
}

static void what_is_missing_is_named(void **state UNUSED)
{
        static const struct { const char *text, *words; } cases[] = {
                { "apiVersion: v1\n", "current-context is not set" },
                { "current-context: x\ncontexts: []\n", "contexts has no entry named \"x\"" },
                { HEAD "users:\n- {name: u, user: {}}\n", "clusters has no entry named \"k\"" },
                { HEAD CLUSTER, "users has no entry named \"u\"" },
                { HEAD "clusters:\n- {name: k, cluster: {}}\n", "the entry has no server" },
                { HEAD CLUSTER "users:\n- {name: u, user: {exec: {command: aws}}}\n", "exec is not supported" },
                { HEAD CLUSTER "users:\n- {name: u, user: {username: a, password: b}}\n", "username is not supported" },
                { HEAD CLUSTER "users:\n- {name: u, user: {client-key-data: \"%\"}}\n", "client-key-data is no Base64" },
                { HEAD CLUSTER "users:\n- {name: u, user: {tokenFile: /nowhere/token}}\n", "/nowhere/token" },
                { "a: [", "kubeconfig" },
        };

        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                struct kube_config c;
                struct error err;

                assert_int_equal(load(cases[i].text, &c, &err), -1);
                if (!strstr(err.text, cases[i].words))
                        fail_msg("case %zu: \"%s\" does not say \"%s\"", i, err.text, cases[i].words);
        }
}

static int make_file(void **state UNUSED)
{
        int fd = mkstemp(path);

        return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state UNUSED) { return unlink(path); }

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(token_and_certificate),
                cmocka_unit_test(files_are_relative_to_the_kubeconfig),
                cmocka_unit_test(what_is_missing_is_named),
        };
        return cmocka_run_group_tests_name("kube config", tests, make_file, remove_file);
}
