#include "source/cloud.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/http.h"
#include "tests/support/trigger.h"

/* ---- the wire ----------------------------------------------------------- */

static struct test_call calls[16];
static struct test_http wire;

/* ---- a world ------------------------------------------------------------ */

static char project[] = "p1", endpoint[] = "http://127.0.0.1:1";
static struct trigger trigger = TEST_TRIGGER("orders");
static struct cloud_spec spec = { .project_id = project, .endpoint = endpoint };
static struct loop *loop;
static struct cloud *cloud;
static struct task wake, stop_task;
static struct services services;
static struct source_account *account;
static struct poller poller;
static struct poller_call call;
static struct poller_port port;

static void no_turn(struct task *t UNUSED, usec now UNUSED) {}
static void stop_turn(struct task *t UNUSED, usec now UNUSED) { loop_stop(loop); }

/* All that is ready has its turn. */
static void pass(void)
{
        for (int i = 0; i < 4; i++) {
                loop_ready(loop, &stop_task);
                loop_run(loop);
        }
}

static int setup(void **state UNUSED)
{
        struct cloud_config config = { .clock = &system_clock, .seed = 1 };
        struct source_account_config of = { .services = &services, .cloud = &spec, .service = "dis" };
        struct http http = test_http_port(&wire);
        struct http_peers peers = test_http_peers(&wire);
        struct error err;

        assert_int_equal(setenv("HUAWEICLOUD_SDK_AK", "AKEXAMPLE", 1), 0);
        assert_int_equal(setenv("HUAWEICLOUD_SDK_SK", "SKEXAMPLE", 1), 0);
        assert_int_equal(loop_new(&loop, &err), 0);
        wire = TEST_HTTP(calls);
        wire.loop = loop;
        config.loop = loop;
        assert_int_equal(cloud_new(&cloud, &config, &err), 0);
        cloud_use(cloud, &http, &peers);
        wake = (struct task){ .turn = no_turn };
        stop_task = (struct task){ .turn = stop_turn };
        services = (struct services){
                .loop = loop, .clock = &system_clock, .cloud = cloud, .trigger = &trigger, .wake = &wake
        };
        assert_int_equal(source_account_new(&account, &of, &err), 0);
        port = source_account_port(account);
        poller = (struct poller){ .services = &services, .ended_last = &poller.ended };
        call = (struct poller_call){ .service = "dis",
                                     .poller = &poller,
                                     .request = { .path = BUF_INIT(1024),
                                                  .query = BUF_INIT(1024),
                                                  .body = BUF_INIT(1024),
                                                  .what = BUF_INIT(1024) } };
        buf_text(&call.request.path, "/v2/{project_id}/records");
        buf_text(&call.request.query, "a=1");
        buf_text(&call.request.what, "records of partition 3");
        return 0;
}

static int teardown(void **state UNUSED)
{
        account = source_account_free(account);
        cloud = cloud_free(cloud);
        loop_forget(loop, &wake);
        loop_forget(loop, &stop_task);
        loop = loop_free(loop);
        buf_done(&call.request.path);
        buf_done(&call.request.query);
        buf_done(&call.request.body);
        buf_done(&call.request.what);
        buf_done(&call.answer);
        return 0;
}

static void begin(void)
{
        port.start(port.cookie, &call);
        pass();
        assert_null(poller.ended);
}

static void end(struct test_answer with)
{
        test_http_end(&wire, test_http_last(&wire), with);
        pass();
        assert_ptr_equal(poller.ended, &call);
        assert_null(call.port);
        poller.ended = NULL;
        poller.ended_last = &poller.ended;
}

/* ---- tests -------------------------------------------------------------- */

static void a_poller_s_call_is_one_of_the_cloud(void **state UNUSED)
{
        begin();
        assert_string_equal(calls[0].method, "GET");
        assert_string_equal(calls[0].path, "/v2/p1/records?a=1");
        end((struct test_answer){ .status = 200, .body = STR("[1]") });
        assert_int_equal(call.status, 200);
        assert_true(str_is(buf_view(&call.answer), "[1]"));
        /* again, with the same room */
        call.request.method = "POST";
        buf_text(&call.request.body, "{}");
        begin();
        assert_string_equal(calls[1].method, "POST");
        assert_string_equal(calls[1].path, "/v2/p1/records?a=1");
        assert_string_equal(calls[1].body, "{}");
        end((struct test_answer){ .status = 201 });
        assert_int_equal(call.answer.n, 0);
        assert_ptr_equal(calls[0].request, calls[1].request);
}

static void what_went_wrong_is_told(void **state UNUSED)
{
        struct test_answer broken = { 0 };

        begin();
        end((struct test_answer){ .status = 400, .body = STR("{\"errorCode\":\"DIS.4303\"}") });
        assert_int_equal(call.status, 400);
        assert_int_equal(call.refusal.verdict, CLOUD_THROTTLE);
        begin();
        (void)error_set(&broken.error, ERROR_UNREACHABLE, "GET http://h/: refused");
        end(broken);
        assert_int_equal(call.status, 0);
        assert_string_equal(call.error.text, "records of partition 3: refused");
        /* An answer that is not whole is none. */
        begin();
        end((struct test_answer){ .status = 200, .body_cut = true });
        assert_int_equal(call.status, 0);
        assert_string_equal(call.error.text,
                            "records of partition 3: 200, and an answer of more than 16 MiB");
}

static void what_was_cancelled_does_not_end(void **state UNUSED)
{
        begin();
        port.cancel(port.cookie, &call);
        assert_int_equal(wire.cancelled, 1);
        pass();
        assert_null(poller.ended);
        begin();
        end((struct test_answer){ .status = 200 });
        port.cancel(port.cookie, &call); /* too late is fine */
}

static void what_a_trigger_lacks_is_named(void **state UNUSED)
{
        struct cloud_credentials credentials = { .type = CLOUD_CREDENTIALS_POD_IDENTITY };
        struct cloud_spec lacking = { .credentials = &credentials };
        struct source_account_config of = { .services = &services, .cloud = &lacking, .service = "dis" };
        struct source_account *none = NULL;
        struct error err;

        assert_int_equal(source_account_new(&none, &of, &err), -1);
        assert_non_null(strstr(err.text, "HC_CONTAINER_CREDENTIALS_FULL_URI is not set"));
        credentials.type = CLOUD_CREDENTIALS_SERVICE_ACCOUNT;
        assert_int_equal(source_account_new(&none, &of, &err), -1);
        assert_non_null(strstr(err.text, "give providerURN and agencyURN"));
        services.cloud = NULL;
        assert_int_equal(source_account_new(&none, &of, &err), -1);
        assert_null(none);
}

static void write_secret(const char *folder, const char *access, const char *secret)
{
        char text[512];

        (void)snprintf(text, sizeof(text), "mkdir -p %s/cloud && cd %s/cloud && echo %s >ak && echo %s >sk",
                       folder, folder, access, secret);
        assert_int_equal(system(text), 0);
}

static void keys_that_changed_are_told(void **state UNUSED)
{
        static char name[] = "cloud", ak[] = "ak", sk[] = "sk";
        char folder[] = "/tmp/cloud-test-XXXXXX", text[64];
        struct secret_ref access = { name, ak }, secret = { name, sk };
        struct cloud_credentials credentials = { .type = CLOUD_CREDENTIALS_SECRET,
                                                 .access_key = &access,
                                                 .secret_key = &secret };
        struct cloud_spec of_secret = { .project_id = project,
                                        .endpoint = endpoint,
                                        .credentials = &credentials };
        struct source_account_config of = { .services = &services, .cloud = &of_secret, .service = "dis" };
        struct source_account *a;
        struct task woken = { .turn = stop_turn };
        struct error err;

        assert_non_null(mkdtemp(folder));
        write_secret(folder, "AK1", "SK1");
        services.secrets = folder;
        services.wake = &woken;
        assert_int_equal(source_account_new(&a, &of, &err), 0);
        assert_false(source_account_keys_changed(a));
        (void)alarm(20);
        write_secret(folder, "AK2", "SK2");
        while (!source_account_keys_changed(a))
                loop_run(loop); /* woken by the change */
        (void)alarm(0);
        (void)source_account_free(a);
        loop_forget(loop, &woken);
        /* Those of the environment don't change. */
        assert_false(source_account_keys_changed(account));
        (void)snprintf(text, sizeof(text), "rm -rf %s", folder);
        assert_int_equal(system(text), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(a_poller_s_call_is_one_of_the_cloud, setup, teardown),
                cmocka_unit_test_setup_teardown(what_went_wrong_is_told, setup, teardown),
                cmocka_unit_test_setup_teardown(what_was_cancelled_does_not_end, setup, teardown),
                cmocka_unit_test_setup_teardown(what_a_trigger_lacks_is_named, setup, teardown),
                cmocka_unit_test_setup_teardown(keys_that_changed_are_told, setup, teardown),
        };
        return cmocka_run_group_tests_name("source cloud", tests, NULL, NULL);
}
