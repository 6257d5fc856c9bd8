#include "controller/sink.h"

/* The port asked for; else the only one, the one named http, or 80. 0: none of them. */
static json_int_t choose_port(const struct sink_ref *ref, json_t *ports)
{
        json_int_t http = 0;
        json_t *p;
        size_t i;

        json_array_foreach(ports, i, p)
        {
                json_int_t number = json_integer_value(json_object_get(p, "port"));
                const char *name = json_string_value(json_object_get(p, "name"));

                if (ref->port > 0 && number == ref->port)
                        return number;
                if (ref->port <= 0 && ((name && strcmp(name, "http") == 0) || (!http && number == 80)))
                        http = number;
        }
        if (ref->port > 0)
                return 0;
        return http ? http
               : json_array_size(ports) == 1
                       ? json_integer_value(json_object_get(json_array_get(ports, 0), "port"))
                       : 0;
}

int sink_resolve(const struct destination *d, json_t *service, struct buf *out, const char **reason,
                 struct buf *message)
{
        const struct sink_ref *ref = d->ref;
        const char *namespace_, *external;
        json_int_t port;

        if (!ref) {
                buf_text(out, d->uri);
                return 0;
        }
        namespace_ = ref->namespace_ ? ref->namespace_ : d->namespace_;
        if (!service) {
                *reason = "ServiceNotFound";
                buf_printf(message, "Service %s/%s does not exist: create it, or correct %s.ref", namespace_,
                           ref->name, d->path);
                return -1;
        }
        external = json_string_value(json_object_get(json_object_get(service, "spec"), "type"));
        port = choose_port(ref, json_object_get(json_object_get(service, "spec"), "ports"));
        if (!port && external && strcmp(external, "ExternalName") == 0)
                port = ref->port > 0 ? ref->port : 80;
        if (!port) {
                *reason = "PortNotFound";
                if (json_array_size(json_object_get(json_object_get(service, "spec"), "ports")) == 0)
                        buf_printf(message, "Service %s/%s has no port: give it one, or correct %s.ref",
                                   namespace_, ref->name, d->path);
                else if (ref->port > 0)
                        buf_printf(message, "Service %s/%s has no port %lld: correct %s.ref.port", namespace_,
                                   ref->name, (long long)ref->port, d->path);
                else
                        buf_printf(message,
                                   "Service %s/%s has several ports and none named http: write %s.ref.port",
                                   namespace_, ref->name, d->path);
                return -1;
        }
        buf_printf(out, "http://%s.%s.svc", ref->name, namespace_);
        if (port != 80)
                buf_printf(out, ":%lld", (long long)port);
        buf_text(out, d->uri ? d->uri : "/");
        return 0;
}

void sink_destination(const struct trigger *t, struct destination *d)
{
        *d = (struct destination){ t->sink->ref, t->sink->uri, t->namespace_, "spec.sink" };
}

bool dead_letter_destination(const struct trigger *t, struct destination *d)
{
        const struct dead_letter_spec *dead = t->delivery->dead_letter;

        if (!dead || dead->kafka)
                return false;
        *d = (struct destination){ dead->ref, dead->uri, t->namespace_, "spec.delivery.deadLetter" };
        return true;
}
