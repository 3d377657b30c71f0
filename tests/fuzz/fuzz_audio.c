/* fuzz_audio: any bytes as sound, for a flow that cuts it into pieces. The first byte says whether
 * it goes on and whether it is raw FP32. */
#include <stdint.h>
#include <string.h>

#include "flow/flow.h"

static const char flow_json[] =
    "{\"steps\":[{\"op\":\"decode_audio\",\"in\":\"input\",\"out\":\"s\",\"rate\":16000},"
    "{\"op\":\"frames\",\"in\":\"s\",\"out\":\"f\",\"size\":16,\"context\":4}],"
    "\"output\":{\"numbers\":\"f\"}}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct xi_flow *flow;
    static struct xi_flow_run *run;
    const struct xi_flow_assets none = {0};
    struct xi_err err = {0};
    struct xi_str json;
    unsigned want = XI_ANSWER_JSON;

    if (bytes == 0)
        return 0;
    if (flow == NULL) {
        XI_ASSERT(xi_flow_parse(flow_json, strlen(flow_json), &none, &flow, &err) == XI_OK);
        run = xi_flow_run_new(flow);
        XI_ASSERT(run != NULL);
    }
    want |= data[0] & 1 ? XI_INPUT_GOES_ON : 0u;
    want |= data[0] & 2 ? XI_INPUT_FP32 : 0u;
    xi_str_init(&json, 16 * XI_MIB);
    enum xi_rc rc = xi_flow_execute(run, NULL, data + 1, bytes - 1, want, &json, NULL, NULL, &err);
    XI_ASSERT(rc == XI_OK || err.msg[0] != '\0');
    XI_ASSERT(rc == XI_OK || rc == XI_EIMAGE || rc == XI_ETENSOR || rc == XI_ETOOBIG);
    xi_str_fini(&json);
    return 0;
}
