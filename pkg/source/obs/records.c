#include "source/obs/records.h"

#include <openssl/sha.h>
#include <stdio.h>

#include "base/clock.h"
#include "json/check.h"
#include "json/tree.h"
#include "json/value.h"

/* ---- FunctionGraph's members -------------------------------------------- */

/* ends in a name NULL; as NULL: under its own name; inside NULL: whatever is there */
struct shape {
        const char *name, *as;
        const struct shape *inside;
};

static const struct shape identity[] = { { "principalId", NULL, NULL },
                                         { "PrincipalId", NULL, NULL },
                                         { "ID", NULL, NULL },
                                         { NULL, NULL, NULL } };
static const struct shape owner[] = { { "principalId", "PrincipalId", NULL },
                                      { "PrincipalId", NULL, NULL },
                                      { "ID", NULL, NULL },
                                      { NULL, NULL, NULL } };
static const struct shape request[] = { { "sourceIPAddress", NULL, NULL }, { NULL, NULL, NULL } };
static const struct shape response[] = {
        { "x-amz-request-id", NULL, NULL }, { "x-amz-id-2", NULL, NULL }, { "x-obs-request-id", NULL, NULL },
        { "x-obs-id-2", NULL, NULL },       { NULL, NULL, NULL },
};
static const struct shape bucket[] = { { "name", NULL, NULL },
                                       { "ownerIdentity", NULL, owner },
                                       { "arn", NULL, NULL },
                                       { "bucket", NULL, NULL },
                                       { NULL, NULL, NULL } };
static const struct shape object[] = { { "key", NULL, NULL },       { "eTag", NULL, NULL },
                                       { "size", NULL, NULL },      { "versionId", NULL, NULL },
                                       { "sequencer", NULL, NULL }, { NULL, NULL, NULL } };
static const struct shape s3[] = { { "s3SchemaVersion", NULL, NULL },
                                   { "configurationId", NULL, NULL },
                                   { "bucket", NULL, bucket },
                                   { "object", NULL, object },
                                   { NULL, NULL, NULL } };
static const struct shape obs[] = {
        { "Version", NULL, NULL },  { "obsSchemaVersion", NULL, NULL }, { "configurationId", NULL, NULL },
        { "bucket", NULL, bucket }, { "object", NULL, object },         { NULL, NULL, NULL },
};
static const struct shape record[] = {
        { "eventVersion", NULL, NULL },
        { "eventSource", NULL, NULL },
        { "awsRegion", NULL, NULL },
        { "eventRegion", NULL, NULL },
        { "eventTime", NULL, NULL },
        { "eventName", NULL, NULL },
        { "userIdentity", NULL, identity },
        { "requestParameters", NULL, request },
        { "responseElements", NULL, response },
        { "s3", NULL, s3 },
        { "obs", NULL, obs },
        { NULL, NULL, NULL },
};

static json_t *shaped(const json_t *from, const struct shape *shape)
{
        json_t *to = json_object();

        for (; to && shape->name; shape++) {
                json_t *value = json_object_get(from, shape->name);

                if (!value)
                        continue;
                if (shape->inside && json_is_object(value))
                        (void)json_object_set_new(to, shape->as ? shape->as : shape->name,
                                                  shaped(value, shape->inside));
                else if (!shape->inside || json_is_null(value))
                        (void)json_object_set(to, shape->as ? shape->as : shape->name, value);
        }
        return to;
}

/* ---- one record --------------------------------------------------------- */

/* Keys are encoded as in a form: + is a space. What is no escape stays as it is, and so does %00: a key is
 * kept as a C string. */
static char *decoded(struct str s)
{
        char *out = malloc(s.n + 1), *p = out;

        for (size_t i = 0; out && i < s.n; i++) {
                int high = i + 2 < s.n ? hex_digit(s.p[i + 1]) : -1,
                    low = i + 2 < s.n ? hex_digit(s.p[i + 2]) : -1;

                if (s.p[i] == '%' && high >= 0 && low >= 0 && (high || low)) {
                        *p++ = (char)(high << 4 | low);
                        i += 2;
                } else
                        *p++ = s.p[i] == '+' ? ' ' : s.p[i];
        }
        if (out)
                *p = 0;
        return out;
}

/* Two changes of a key within a second, which is all that eventTime tells, differ in their sequencer, where
 * there is one, or in what the object became. */
static void identify(struct obs_record *r, struct str bucket_name, struct str key, const json_t *object_,
                     struct str time)
{
        unsigned char hash[SHA256_DIGEST_LENGTH];
        BUF_AT_END struct buf text = BUF_INIT(OBS_BODY_MOST);
        struct str sequencer = json_member(object_, "sequencer"), tag = json_member(object_, "eTag");
        const struct str none = { "", 0 }, parts[] = { bucket_name,
                                                       key,
                                                       json_member(object_, "versionId"),
                                                       sequencer,
                                                       sequencer.n ? none : time,
                                                       sequencer.n ? none : tag,
                                                       str_of(r->event) };

        for (size_t i = 0; i < COUNT_OF(parts); i++)
                buf_printf(&text, "%zu:" STR_FMT, parts[i].n, STR_ARG(parts[i]));
        SHA256((const unsigned char *)(text.p ? text.p : ""), text.n, hash);
        hex_text(hash, 16, r->id);
}

static enum obs_result parse_record(const json_t *from, struct obs_record *r)
{
        const json_t *inside = json_object_get(from, "s3") ? json_object_get(from, "s3")
                                                           : json_object_get(from, "obs"),
                     *object_ = json_object_get(inside, "object");
        struct str name = json_member(from, "eventName"),
                   bucket_name = json_member(json_object_get(inside, "bucket"), "name"),
                   key = json_member(object_, "key"), time = json_member(from, "eventTime");
        json_t *to;

        if (!json_is_object(inside) || !name.n || !bucket_name.n || !key.n)
                return OBS_MALFORMED;
        if (str_starts(name, STR("s3:")))
                name = (struct str){ name.p + 3, name.n - 3 };
        if (!time_parse(time, &r->time))
                r->time = 0;
        r->event = str_dup(name);
        r->bucket = str_dup(bucket_name);
        r->key = decoded(key);
        if (!r->event || !r->bucket || !r->key)
                return OBS_NO_MEMORY;
        identify(r, bucket_name, key, object_, time);
        to = shaped(from, record);
        (void)json_object_set_new(to, "eventName", json_stringn(name.p, name.n));
        r->json = to ? json_dumps(to, JSON_COMPACT) : NULL;
        json_decref(to);
        if (!r->json)
                return OBS_NO_MEMORY;
        r->json_n = strlen(r->json);
        return OBS_RECORDS;
}

/* ---- all of them -------------------------------------------------------- */

void obs_record_done(struct obs_record *r)
{
        free(r->json);
        free(r->event);
        free(r->bucket);
        free(r->key);
        *r = (struct obs_record){ 0 };
}

void obs_records_done(struct obs_records *all)
{
        for (size_t i = 0; i < all->n; i++)
                obs_record_done(&all->list[i]);
        free(all->list);
        *all = (struct obs_records){ 0 };
}

static enum obs_result parse_list(const json_t *list, struct obs_records *all)
{
        enum obs_result result = OBS_RECORDS;

        all->list = calloc(json_array_size(list), sizeof(*all->list));
        if (!all->list)
                return OBS_NO_MEMORY;
        for (size_t i = 0; i < json_array_size(list) && result == OBS_RECORDS; i++)
                result = parse_record(json_array_get(list, i), &all->list[all->n++]);
        return result;
}

enum obs_result obs_parse(struct str body, struct obs_records *out)
{
        const struct str text = json_without_mark(body);
        json_t *root = json_tree(text, JSON_REJECT_DUPLICATES, OBS_VALUES_MOST, NULL);
        const json_t *list = json_object_get(root, "Records");
        struct obs_records all = { 0 };
        enum obs_result result;

        if (!root)
                result = json_few_values(text, OBS_VALUES_MOST) ? OBS_MALFORMED : OBS_TOO_MANY;
        else if (!json_is_array(list))
                result = json_is_object(root) && (json_is_null(list) ||
                                                  (!list && json_is_string(json_object_get(root, "Event"))))
                                 ? OBS_NOTHING
                                 : OBS_MALFORMED;
        else if (!json_array_size(list))
                result = OBS_NOTHING;
        else if (json_array_size(list) > OBS_RECORDS_MOST)
                result = OBS_TOO_MANY;
        else
                result = parse_list(list, &all);
        json_decref(root);
        if (result == OBS_RECORDS)
                *out = all;
        else
                obs_records_done(&all);
        return result;
}

bool obs_event_matches(const char *event, char *const *patterns, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                size_t length = strlen(patterns[i]);

                if (length && patterns[i][length - 1] == '*' ? strncmp(event, patterns[i], length - 1) == 0
                                                             : strcmp(event, patterns[i]) == 0)
                        return true;
        }
        return false;
}
