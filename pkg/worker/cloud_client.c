#include "worker/cloud_client.h"

struct cloud_client {
        struct http_client *http;
        struct cloud *cloud;
};

static const usec CONNECT_TIMEOUT = 5 * USEC_SEC, MAX_AGE = 30 * USEC_MINUTE;

static int open_target(void *cookie, struct http_target **out, const struct http_peer *peer,
                       struct error *err)
{
        static const struct http_settings own = { .ca = "its caSecretRef" };
        struct cloud_client *c = cookie;
        struct http_target_config target = { .url = str_of(peer->url),
                                             .method = peer->method,
                                             .headers = peer->headers,
                                             .max_connections = peer->connections,
                                             .connect_timeout = CONNECT_TIMEOUT,
                                             .max_age = MAX_AGE,
                                             .answer_max = peer->answer_max,
                                             .http_version = HTTP_AUTO,
                                             .tls = { .ca_file = peer->ca_file },
                                             .settings = &own };

        return http_target_new(out, c->http, &target, err);
}

static void close_target(void *cookie UNUSED, struct http_target *t) { (void)http_target_free(t); }

int cloud_client_new(struct cloud_client **out, struct loop *loop, struct http_client *http,
                     const struct clock *clock, struct error *err)
{
        static const struct http_peers_ops ops = { open_target, close_target };
        struct cloud_client *c = calloc(1, sizeof(*c));
        const char *endpoint = getenv("SLUICE_CLOUD");
        struct cloud_config config = { .loop = loop,
                                       .clock = clock,
                                       .endpoint = endpoint && *endpoint ? endpoint : NULL,
                                       .seed = random_seed() };
        struct http_peers peers = { &ops, c };
        struct http port;

        if (!c)
                return error_memory(err);
        c->http = http;
        if (cloud_new(&c->cloud, &config, err) < 0) {
                (void)cloud_client_free(c);
                return -1;
        }
        port = http_client_port(http);
        cloud_use(c->cloud, &port, &peers);
        *out = c;
        return 0;
}

struct cloud *cloud_client_cloud(struct cloud_client *c) { return c ? c->cloud : NULL; }

struct cloud_client *cloud_client_free(struct cloud_client *c)
{
        if (!c)
                return NULL;
        (void)cloud_free(c->cloud);
        free(c);
        return NULL;
}
