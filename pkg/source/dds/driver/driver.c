#define _GNU_SOURCE 1
#include "source/dds/driver/inside.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A failing getMore is made again by the library at once and for ever: so many a second are enough. */
enum { PAUSE_MS = 200, TOLD_AFTER = 2, SOCKET_MS = 300000, BATCH = 1000, WIRE_SPLITS = 21, TEXT = 96 };

/* ---- faults ------------------------------------------------------------- */

static int fails(struct dds_fault *f, enum dds_fault_kind kind, int code, const char *text)
{
        *f = (struct dds_fault){ .kind = kind, .code = code };
        (void)snprintf(f->text, sizeof(f->text), "%.*s", (int)sizeof(f->text) - 1, text);
        return -1;
}

static enum dds_fault_kind kind_of(const bson_error_t *e)
{
        switch (e->domain) {
        case MONGOC_ERROR_SERVER: return DDS_FAULT_SERVER;
        case MONGOC_ERROR_SERVER_SELECTION: return DDS_FAULT_PRIMARY;
        case MONGOC_ERROR_STREAM: return DDS_FAULT_NETWORK;
        case MONGOC_ERROR_SCRAM:
        case MONGOC_ERROR_SASL: return DDS_FAULT_USER;
        case MONGOC_ERROR_CLIENT:
                return e->code == MONGOC_ERROR_CLIENT_AUTHENTICATE ? DDS_FAULT_USER : DDS_FAULT_OTHER;
        case MONGOC_ERROR_BSON:
        case MONGOC_ERROR_CURSOR:
        case MONGOC_ERROR_COMMAND: return DDS_FAULT_CONFIG;
        default: return DDS_FAULT_OTHER;
        }
}

static int failed(const struct dds_client *c, const bson_error_t *e, struct dds_fault *f)
{
        if (wire_is_cut(&c->line))
                return fails(f, DDS_FAULT_CUT, 0, "");
        if (e->domain == MONGOC_ERROR_SERVER_SELECTION && c->connecting.kind != DDS_FAULT_NONE) {
                *f = c->connecting;
                return -1;
        }
        return fails(f, kind_of(e), e->domain == MONGOC_ERROR_SERVER ? (int)e->code : 0, e->message);
}

/* ---- what the library tells of its calls -------------------------------- */

static bool is_call(const char *name)
{
        return strcmp(name, "getMore") == 0 || strcmp(name, "aggregate") == 0;
}

static void read_batch(struct dds_client *c, const bson_iter_t *batch)
{
        bson_iter_t i;

        for (c->left = 0; bson_iter_recurse(batch, &i);) {
                while (bson_iter_next(&i))
                        c->left++;
                break;
        }
}

static void read_cursor(struct dds_client *c, const bson_t *reply)
{
        bson_iter_t i, cursor;

        if (!bson_iter_init_find(&i, reply, "cursor") || !bson_iter_recurse(&i, &cursor))
                return;
        while (bson_iter_next(&cursor)) {
                const char *key = bson_iter_key(&cursor);

                if (strcmp(key, "id") == 0)
                        c->over = bson_iter_as_int64(&cursor) == 0;
                else if ((strcmp(key, "firstBatch") == 0 || strcmp(key, "nextBatch") == 0) &&
                         BSON_ITER_HOLDS_ARRAY(&cursor))
                        read_batch(c, &cursor);
        }
}

static bool read_time(const bson_t *reply, const char *name, struct dds_time *out)
{
        bson_iter_t i;

        if (!bson_iter_init_find(&i, reply, name) || !BSON_ITER_HOLDS_TIMESTAMP(&i))
                return false;
        bson_iter_timestamp(&i, &out->seconds, &out->number);
        return true;
}

static void succeeded(const mongoc_apm_command_succeeded_t *event)
{
        struct dds_client *c = mongoc_apm_command_succeeded_get_context(event);
        const char *name = mongoc_apm_command_succeeded_get_command_name(event);
        const bson_t *reply = mongoc_apm_command_succeeded_get_reply(event);

        if (!is_call(name))
                return;
        read_cursor(c, reply);
        (void)read_time(reply, "operationTime", &c->clock);
        if (strcmp(name, "getMore") != 0)
                return;
        c->failures = 0;
        if (c->troubled)
                c->line.trouble(c->line.cookie, NULL);
        c->troubled = false;
}

/* The library goes on with the next attempt once this returns. */
static void call_failed(const mongoc_apm_command_failed_t *event)
{
        struct dds_client *c = mongoc_apm_command_failed_get_context(event);
        struct dds_fault fault;
        bson_error_t error;

        if (strcmp(mongoc_apm_command_failed_get_command_name(event), "getMore") != 0)
                return;
        mongoc_apm_command_failed_get_error(event, &error);
        if (++c->failures >= TOLD_AFTER && !wire_is_cut(&c->line)) {
                (void)failed(c, &error, &fault);
                c->line.trouble(c->line.cookie, &fault);
                c->troubled = true;
        }
        (void)wire_pause(&c->line, PAUSE_MS);
}

static void listen_to_calls(struct dds_client *c)
{
        mongoc_apm_callbacks_t *callbacks = mongoc_apm_callbacks_new();

        mongoc_apm_set_command_succeeded_cb(callbacks, succeeded);
        mongoc_apm_set_command_failed_cb(callbacks, call_failed);
        (void)mongoc_client_set_apm_callbacks(c->mongo, callbacks, c);
        mongoc_apm_callbacks_destroy(callbacks);
}

/* ---- the client --------------------------------------------------------- */

static const char *library(void)
{
        static char text[TEXT];

        (void)snprintf(text, sizeof(text), "libmongoc %s", mongoc_get_version());
        return text;
}

/* The library reads certificates from files alone. */
static int in_memory(const char *one, const char *other)
{
        int fd = memfd_create("certificates", MFD_CLOEXEC);
        bool well = fd >= 0 && dprintf(fd, "%s\n%s\n", one, other) > 0;

        if (!well && fd >= 0) {
                (void)close(fd);
                return -1;
        }
        return fd;
}

static const char *path_of(int fd) { return bson_strdup_printf("/proc/self/fd/%d", fd); }

static bool set_tls(struct dds_client *c, const struct dds_target *t)
{
        c->has_tls = t->tls;
        if (!t->tls)
                return true;
        if (t->ca && (c->ca = in_memory(t->ca, "")) < 0)
                return false;
        if (t->cert && (c->pem = in_memory(t->cert, t->key ? t->key : "")) < 0)
                return false;
        c->tls.ca_file = c->ca >= 0 ? path_of(c->ca) : NULL;
        c->tls.pem_file = c->pem >= 0 ? path_of(c->pem) : NULL;
        c->tls.allow_invalid_hostname = !t->verify_hostname;
        return true;
}

static mongoc_uri_t *uri_of_hosts(const struct dds_target *t, bson_error_t *error)
{
        size_t size = sizeof("mongodb:///"), n;
        mongoc_uri_t *uri;
        char *text;

        for (size_t i = 0; i < t->hosts_n; i++)
                size += strlen(t->hosts[i]) + 1;
        text = bson_malloc(size);
        n = (size_t)snprintf(text, size, "mongodb://");
        for (size_t i = 0; i < t->hosts_n; i++)
                n += (size_t)snprintf(text + n, size - n, "%s%s", i ? "," : "", t->hosts[i]);
        (void)snprintf(text + n, size - n, "/");
        uri = mongoc_uri_new_with_error(text, error);
        bson_free(text);
        return uri;
}

static bool set_user(mongoc_uri_t *uri, const struct dds_target *t)
{
        bool x509 = t->mechanism && strcmp(t->mechanism, "MONGODB-X509") == 0;

        if (t->user && !mongoc_uri_set_username(uri, t->user))
                return false;
        if (t->password && !mongoc_uri_set_password(uri, t->password))
                return false;
        if ((t->user || x509) && !mongoc_uri_set_auth_source(uri, x509 ? "$external" : t->auth_source))
                return false;
        return !t->mechanism || mongoc_uri_set_auth_mechanism(uri, t->mechanism);
}

static mongoc_uri_t *uri_of(const struct dds_target *t, bson_error_t *error)
{
        mongoc_uri_t *uri = uri_of_hosts(t, error);

        if (!uri)
                return NULL;
        if ((!t->replica_set || mongoc_uri_set_option_as_utf8(uri, MONGOC_URI_REPLICASET, t->replica_set)) &&
            mongoc_uri_set_option_as_bool(uri, MONGOC_URI_DIRECTCONNECTION, t->direct) &&
            (!t->tls || mongoc_uri_set_option_as_bool(uri, MONGOC_URI_TLS, true)) &&
            mongoc_uri_set_option_as_int32(uri, MONGOC_URI_CONNECTTIMEOUTMS, t->connect_ms) &&
            mongoc_uri_set_option_as_int32(uri, MONGOC_URI_SOCKETTIMEOUTMS, SOCKET_MS) && set_user(uri, t))
                return uri;
        mongoc_uri_destroy(uri);
        bson_set_error(error, MONGOC_ERROR_COMMAND, MONGOC_ERROR_COMMAND_INVALID_ARG,
                       "the library does not take the user's name, the password or an option");
        return NULL;
}

static void drop_stream(struct dds_client *c)
{
        if (c->stream)
                mongoc_change_stream_destroy(c->stream);
        c->stream = NULL;
        c->left = 0;
        c->over = false;
}

static void close_client(struct dds_client *c)
{
        if (!c)
                return;
        drop_stream(c);
        if (c->mongo)
                mongoc_client_destroy(c->mongo);
        bson_free((char *)(uintptr_t)c->tls.ca_file);
        bson_free((char *)(uintptr_t)c->tls.pem_file);
        if (c->ca >= 0)
                (void)close(c->ca);
        if (c->pem >= 0)
                (void)close(c->pem);
        free(c);
}

static bool connects(struct dds_client *c, const struct dds_target *t, struct dds_fault *f)
{
        bson_error_t error = { 0 };
        mongoc_uri_t *uri = uri_of(t, &error);

        if (uri)
                c->mongo = mongoc_client_new_from_uri_with_error(uri, &error);
        if (uri)
                mongoc_uri_destroy(uri);
        if (!c->mongo) {
                (void)fails(f, DDS_FAULT_CONFIG, 0, error.message);
                return false;
        }
        (void)mongoc_client_set_error_api(c->mongo, MONGOC_ERROR_API_VERSION_2);
        (void)mongoc_client_set_appname(c->mongo, "sluice");
        if (c->has_tls)
                mongoc_client_set_ssl_opts(c->mongo, &c->tls);
        mongoc_client_set_stream_initiator(c->mongo, wire_open, c);
        listen_to_calls(c);
        return true;
}

static void silent(mongoc_log_level_t level, const char *domain, const char *message, void *user)
{
        (void)level;
        (void)domain;
        (void)message;
        (void)user;
}

static void begin(void)
{
        mongoc_log_set_handler(silent, NULL); /* what goes wrong is returned, and told by the program */
        mongoc_init();
}

static struct dds_client *open_client(const struct dds_target *t, const struct dds_line *line,
                                      struct dds_fault *f)
{
        static pthread_once_t once = PTHREAD_ONCE_INIT;
        struct dds_client *c = calloc(1, sizeof(*c));

        (void)pthread_once(&once, begin);
        if (!c) {
                (void)fails(f, DDS_FAULT_MEMORY, 0, "out of memory");
                return NULL;
        }
        c->line = *line;
        c->ca = c->pem = -1;
        c->connect_ms = t->connect_ms;
        if (!set_tls(c, t))
                (void)fails(f, DDS_FAULT_MEMORY, 0, "out of memory");
        else if (connects(c, t, f))
                return c;
        close_client(c);
        return NULL;
}

/* ---- the stream --------------------------------------------------------- */

/* The newest protocol that the server speaks; -1: there is none, and the fault says why. */
static int wire_version(struct dds_client *c, struct dds_fault *f)
{
        bson_error_t error = { 0 };
        mongoc_server_description_t *server = mongoc_client_select_server(c->mongo, false, NULL, &error);
        bson_iter_t i;
        int version = 0;

        if (!server)
                return failed(c, &error, f);
        if (bson_iter_init_find(&i, mongoc_server_description_hello_response(server), "maxWireVersion"))
                version = (int)bson_iter_as_int64(&i);
        mongoc_server_description_destroy(server);
        return version;
}

static void append_stage(bson_t *stages, uint32_t *n, const bson_t *stage)
{
        const char *key;
        char space[16];

        (void)bson_uint32_to_string((*n)++, &key, space, sizeof(space));
        (void)bson_append_document(stages, key, -1, stage);
}

/* What is delivered; and the end of the stream, which is told whoever wants it. */
static void append_match(bson_t *stages, uint32_t *n, const struct dds_watch *w)
{
        bson_t stage, match, in, list;
        uint32_t count = 0;
        const char *key;
        char space[16];

        bson_init(&stage);
        bson_append_document_begin(&stage, "$match", -1, &match);
        bson_append_document_begin(&match, "operationType", -1, &in);
        bson_append_array_begin(&in, "$in", -1, &list);
        for (size_t i = 0; i <= w->operations_n; i++) {
                (void)bson_uint32_to_string(count++, &key, space, sizeof(space));
                (void)bson_append_utf8(&list, key, -1, i < w->operations_n ? w->operations[i] : "invalidate",
                                       -1);
        }
        bson_append_array_end(&in, &list);
        bson_append_document_end(&match, &in);
        bson_append_document_end(&stage, &match);
        append_stage(stages, n, &stage);
        bson_destroy(&stage);
}

/* The user's stages, in JSON. */
static int append_pipeline(bson_t *stages, uint32_t *n, const char *pipeline, struct dds_fault *f)
{
        char *text = bson_strdup_printf("{\"pipeline\":%s}", pipeline);
        bson_error_t error = { 0 };
        bson_t *all = bson_new_from_json((const uint8_t *)text, -1, &error), stage;
        bson_iter_t i, list;

        bson_free(text);
        if (!all)
                return fails(f, DDS_FAULT_CONFIG, 0, error.message);
        if (bson_iter_init_find(&i, all, "pipeline") && bson_iter_recurse(&i, &list))
                while (bson_iter_next(&list)) {
                        const uint8_t *data;
                        uint32_t length;

                        if (!BSON_ITER_HOLDS_DOCUMENT(&list))
                                continue;
                        bson_iter_document(&list, &length, &data);
                        if (bson_init_static(&stage, data, length))
                                append_stage(stages, n, &stage);
                }
        bson_destroy(all);
        return 0;
}

static int make_pipeline(const struct dds_watch *w, int version, bson_t *out, struct dds_fault *f)
{
        bson_t stages, split = BSON_INITIALIZER, nothing = BSON_INITIALIZER;
        uint32_t n = 0;
        int result;

        bson_init(out);
        bson_append_array_begin(out, "pipeline", -1, &stages);
        append_match(&stages, &n, w);
        result = w->pipeline ? append_pipeline(&stages, &n, w->pipeline, f) : 0;
        (void)bson_append_document(&split, "$changeStreamSplitLargeEvent", -1, &nothing);
        if (version >= WIRE_SPLITS)
                append_stage(&stages, &n, &split);
        bson_append_array_end(out, &stages);
        bson_destroy(&split);
        bson_destroy(&nothing);
        return result;
}

static int make_options(const struct dds_watch *w, bson_t *out, struct dds_fault *f)
{
        bson_t token;

        bson_init(out);
        (void)bson_append_int64(out, "maxAwaitTimeMS", -1, w->await_ms);
        (void)bson_append_int32(out, "batchSize", -1, BATCH);
        if (w->full_document)
                (void)bson_append_utf8(out, "fullDocument", -1, w->full_document, -1);
        if (w->before)
                (void)bson_append_utf8(out, "fullDocumentBeforeChange", -1, w->before, -1);
        if (w->from == DDS_AT_TIME)
                (void)bson_append_timestamp(out, "startAtOperationTime", -1, w->time.seconds, w->time.number);
        if (w->from != DDS_RESUME_AFTER && w->from != DDS_START_AFTER)
                return 0;
        if (!bson_init_static(&token, w->token.p, w->token.n))
                return fails(f, DDS_FAULT_CONFIG, 0, "the position is no resume token");
        (void)bson_append_document(out, w->from == DDS_RESUME_AFTER ? "resumeAfter" : "startAfter", -1,
                                   &token);
        return 0;
}

static mongoc_change_stream_t *open_stream(struct dds_client *c, const struct dds_watch *w,
                                           const bson_t *pipeline, const bson_t *options)
{
        mongoc_change_stream_t *stream;

        if (!w->database)
                return mongoc_client_watch(c->mongo, pipeline, options);
        if (w->collection) {
                mongoc_collection_t *collection = mongoc_client_get_collection(c->mongo, w->database,
                                                                               w->collection);

                stream = mongoc_collection_watch(collection, pipeline, options);
                mongoc_collection_destroy(collection);
        } else {
                mongoc_database_t *database = mongoc_client_get_database(c->mongo, w->database);

                stream = mongoc_database_watch(database, pipeline, options);
                mongoc_database_destroy(database);
        }
        return stream;
}

/* Has the stream ended with an error? The fault says which. */
static bool has_failed(struct dds_client *c, struct dds_fault *f)
{
        bson_error_t error = { 0 };
        const bson_t *reply;

        if (!mongoc_change_stream_error_document(c->stream, &error, &reply))
                return false;
        (void)failed(c, &error, f);
        return true;
}

static int watch(struct dds_client *c, const struct dds_watch *w, struct dds_fault *f)
{
        int version = wire_version(c, f);
        bson_t pipeline = BSON_INITIALIZER, options = BSON_INITIALIZER;
        int result = -1;

        if (version < 0)
                return -1;
        drop_stream(c);
        if (make_pipeline(w, version, &pipeline, f) == 0 && make_options(w, &options, f) == 0) {
                c->stream = open_stream(c, w, &pipeline, &options);
                result = has_failed(c, f) ? -1 : 0;
        }
        bson_destroy(&pipeline);
        bson_destroy(&options);
        return result;
}

static enum dds_next next(struct dds_client *c, struct dds_bytes *change, struct dds_fault *f)
{
        const bson_t *document;

        if (mongoc_change_stream_next(c->stream, &document)) {
                c->left -= c->left > 0;
                *change = (struct dds_bytes){ bson_get_data(document), document->len };
                return DDS_NEXT_DOCUMENT;
        }
        c->left = 0;
        return has_failed(c, f) ? DDS_NEXT_FAILED : DDS_NEXT_NOTHING;
}

static uint32_t left(const struct dds_client *c) { return c->left; }
static bool over(const struct dds_client *c) { return c->over; }
static struct dds_time server_clock(const struct dds_client *c) { return c->clock; }

static struct dds_bytes reached(const struct dds_client *c)
{
        const bson_t *token = mongoc_change_stream_get_resume_token(c->stream);

        return token ? (struct dds_bytes){ bson_get_data(token), token->len } : (struct dds_bytes){ 0 };
}

/* ---- times -------------------------------------------------------------- */

static int now(struct dds_client *c, struct dds_time *out, struct dds_fault *f)
{
        bson_t ping = BSON_INITIALIZER, reply;
        bson_error_t error = { 0 };
        bool well, told;

        (void)bson_append_int32(&ping, "ping", -1, 1);
        well = mongoc_client_command_simple(c->mongo, "admin", &ping, NULL, &reply, &error);
        told = well && read_time(&reply, "operationTime", out);
        bson_destroy(&ping);
        bson_destroy(&reply);
        if (!well)
                return failed(c, &error, f);
        if (!told)
                return fails(f, DDS_FAULT_CONFIG, 0,
                             "the server is a single node without an oplog, and so without change streams: "
                             "it takes "
                             "a replica set or a cluster");
        out->number++; /* behind what has happened already */
        return 0;
}

static int first_time(struct dds_client *c, mongoc_cursor_t *cursor, struct dds_time *out,
                      struct dds_fault *f)
{
        const bson_t *entry;
        bson_error_t error = { 0 };

        if (mongoc_cursor_next(cursor, &entry) && read_time(entry, "ts", out))
                return 0;
        if (mongoc_cursor_error(cursor, &error))
                return failed(c, &error, f);
        return fails(f, DDS_FAULT_CONFIG, 0,
                     "the server shows no oplog, local.oplog.rs, as the mongos nodes of a cluster do not: "
                     "its oldest "
                     "change is not known");
}

static int oldest(struct dds_client *c, struct dds_time *out, struct dds_fault *f)
{
        mongoc_collection_t *oplog = mongoc_client_get_collection(c->mongo, "local", "oplog.rs");
        bson_t filter = BSON_INITIALIZER, options = BSON_INITIALIZER, part;
        mongoc_cursor_t *cursor;
        int result;

        bson_append_document_begin(&options, "sort", -1, &part);
        (void)bson_append_int32(&part, "$natural", -1, 1);
        bson_append_document_end(&options, &part);
        bson_append_document_begin(&options, "projection", -1, &part);
        (void)bson_append_int32(&part, "ts", -1, 1);
        bson_append_document_end(&options, &part);
        (void)bson_append_int64(&options, "limit", -1, 1);
        cursor = mongoc_collection_find_with_opts(oplog, &filter, &options, NULL);
        result = first_time(c, cursor, out, f);
        mongoc_cursor_destroy(cursor);
        mongoc_collection_destroy(oplog);
        bson_destroy(&filter);
        bson_destroy(&options);
        return result;
}

const struct dds_driver sluice_dds_driver __attribute__((visibility("default")));
const struct dds_driver sluice_dds_driver = { .version = DDS_DRIVER_VERSION,
                                              .library = library,
                                              .open = open_client,
                                              .close = close_client,
                                              .watch = watch,
                                              .next = next,
                                              .left = left,
                                              .over = over,
                                              .reached = reached,
                                              .clock = server_clock,
                                              .now = now,
                                              .oldest = oldest };
