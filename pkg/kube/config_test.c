#include "kube/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
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

#define HEAD                                                                                                 \
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts:\n- {name: c, context: {cluster: k, "    \
        "user: u, namespace: shop}}\n"
#define CLUSTER                                                                                              \
        "clusters:\n- {name: k, cluster: {server: \"https://127.0.0.1:6443/\", certificate-authority-data: " \
        "Q0E=}}\n"

static void token_and_certificate(void **state UNUSED)
{
        struct kube_config c;
        struct error err;

        assert_int_equal(load(HEAD CLUSTER "users:\n- {name: u, user: {token: t0k, client-certificate-data: "
                                           "Q0VSVA==, client-key-data: S0VZ}}\n",
                              &c, &err),
                         0);
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

        (void)snprintf(text, sizeof(text),
                       HEAD
                       "clusters:\n- {name: k, cluster: {server: \"https://h\", certificate-authority: %s, "
                       "insecure-skip-tls-verify: true}}\nusers:\n- {name: u, user: {tokenFile: %s}}\n",
                       name, path);
        assert_int_equal(load(text, &c, &err), 0);
        assert_non_null(strstr(c.ca, "kind: Config"));
        assert_non_null(strstr(c.token, "kind: Config"));
        assert_string_equal(c.ca_file, path);
        assert_true(c.insecure);
        kube_config_done(&c);
}

/* In a folder of its own: the kubeconfig names files beside and below itself. */
static void a_folder_with_files_works_from_anywhere(void **state UNUSED)
{
        static const char config[] = HEAD "clusters:\n- {name: k, cluster: {server: \"https://h:1/\", "
                                          "certificate-authority: pki/ca.crt, tls-server-name: kubernetes}}\n"
                                          "users:\n- {name: u, user: {client-certificate: pki/cert, "
                                          "client-certificate-data: REFUQQ==, client-key: pki/ca.crt}}\n";
        char folder[] = "/tmp/kubeconfig-folder-XXXXXX", name[64], pki[64], ca[64];
        struct kube_config c;
        struct error err;
        FILE *f;

        assert_non_null(mkdtemp(folder));
        (void)snprintf(name, sizeof(name), "%s/config", folder);
        (void)snprintf(pki, sizeof(pki), "%s/pki", folder);
        (void)snprintf(ca, sizeof(ca), "%s/pki/ca.crt", folder);
        assert_int_equal(mkdir(pki, 0700), 0);
        assert_non_null(f = fopen(ca, "w"));
        assert_true(fputs("PEM\n", f) >= 0 && fclose(f) == 0);
        assert_non_null(f = fopen(name, "w"));
        assert_true(fputs(config, f) >= 0 && fclose(f) == 0);
        if (kube_config_load(&c, name, &err) < 0)
                fail_msg("%s", err.text);
        assert_string_equal(c.ca, "PEM");
        assert_string_equal(c.ca_file, ca);
        assert_string_equal(c.key, "PEM");
        assert_string_equal(c.certificate, "DATA"); /* data wins: the file does not even exist */
        assert_string_equal(c.tls_server_name, "kubernetes");
        assert_null(c.token);
        kube_config_done(&c);
        assert_int_equal(unlink(ca), 0);
        assert_int_equal(kube_config_load(&c, name, &err), -1);
        /* the error names what can't be read, and who asked for it */
        assert_non_null(strstr(err.text, ca));
        assert_non_null(strstr(err.text, "certificate-authority"));
        assert_true(unlink(name) == 0 && rmdir(pki) == 0 && rmdir(folder) == 0);
}

static void the_environment_names_the_file(void **state UNUSED)
{
        struct kube_config c;
        struct error err;
        char list[128];

        assert_int_equal(
                load("current-context: c\ncontexts:\n- {name: c, context: {cluster: k, user: u}}\n" CLUSTER
                     "users:\n- {name: u, user: {token: t}}\n",
                     &c, &err),
                0);
        kube_config_done(&c);
        (void)snprintf(list, sizeof(list), "%s:/nowhere", path);
        assert_int_equal(setenv("KUBECONFIG", list, 1), 0);
        if (kube_config_load(&c, NULL, &err) < 0)
                fail_msg("%s", err.text);
        assert_string_equal(c.token, "t");
        assert_string_equal(c.namespace_, "default");
        kube_config_done(&c);
        assert_int_equal(setenv("KUBECONFIG", "/nowhere/config", 1), 0);
        assert_int_equal(kube_config_load(&c, NULL, &err), -1);
        assert_non_null(strstr(err.text, "/nowhere/config"));
        assert_int_equal(unsetenv("KUBECONFIG"), 0);
}

static void what_is_missing_is_named(void **state UNUSED)
{
        static const struct {
                const char *text, *words;
        } cases[] = {
                ROW("apiVersion: v1\n", "current-context is not set"),
                ROW("current-context: x\ncontexts: []\n", "contexts has no entry named \"x\""),
                ROW("current-context: c\ncontexts:\n- {name: c, context: {cluster: k}}\n",
                    "context \"c\" names no cluster or no user"),
                ROW(HEAD CLUSTER "users:\n- {name: u, user: {auth-provider: {name: gcp}}}\n",
                    "auth-provider is not supported"),
                ROW(HEAD CLUSTER "users:\n- {name: u, user: {as: root}}\n", "as is not supported"),
                ROW(HEAD "users:\n- {name: u, user: {}}\n", "clusters has no entry named \"k\""),
                ROW(HEAD CLUSTER, "users has no entry named \"u\""),
                ROW(HEAD "clusters:\n- {name: k, cluster: {}}\n", "the entry has no server"),
                ROW(HEAD CLUSTER "users:\n- {name: u, user: {exec: {command: aws}}}\n",
                    "exec is not supported"),
                ROW(HEAD CLUSTER "users:\n- {name: u, user: {username: a, password: b}}\n",
                    "username is not supported"),
                ROW(HEAD CLUSTER "users:\n- {name: u, user: {client-key-data: \"%\"}}\n",
                    "client-key-data is no Base64"),
                ROW(HEAD CLUSTER "users:\n- {name: u, user: {tokenFile: /nowhere/token}}\n",
                    "/nowhere/token"),
                ROW("a: [", "kubeconfig"),
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
                cmocka_unit_test(a_folder_with_files_works_from_anywhere),
                cmocka_unit_test(the_environment_names_the_file),
                cmocka_unit_test(files_are_relative_to_the_kubeconfig),
                cmocka_unit_test(what_is_missing_is_named),
        };
        return cmocka_run_group_tests_name("kube config", tests, make_file, remove_file);
}
