/* types.h: what every part of xInfer and every engine plugin shares: element types and tensors.
 * Append only: numbers and offsets never change once released. */
#ifndef XINFER_TYPES_H
#define XINFER_TYPES_H

#include <stdint.h>

#define XI_MAX_RANK 8

/* Element types of the Open Inference Protocol. Values are wire format. */
enum xi_dtype {
    XI_DT_UNKNOWN = 0,
    XI_DT_BOOL = 1,
    XI_DT_UINT8 = 2,
    XI_DT_UINT16 = 3,
    XI_DT_UINT32 = 4,
    XI_DT_UINT64 = 5,
    XI_DT_INT8 = 6,
    XI_DT_INT16 = 7,
    XI_DT_INT32 = 8,
    XI_DT_INT64 = 9,
    XI_DT_FP16 = 10,
    XI_DT_FP32 = 11,
    XI_DT_FP64 = 12,
    XI_DT_BF16 = 13,
    XI_DT_BYTES = 14 /* a run of {uint32 little-endian length, bytes} elements */
};

/* Where a tensor's bytes lie. */
enum xi_memory {
    XI_MEM_HOST = 0,   /* `data` is an address of this process */
    XI_MEM_DMABUF = 1, /* `fd` is a dma-buf, `data` an offset into it */
    XI_MEM_DEVICE = 2  /* `data` is a device address */
};

/* A dense row-major tensor. Never owns its bytes: the holder of the struct says who does. */
struct xi_tensor {
    uint32_t size;   /* sizeof(struct xi_tensor) of whoever filled it in */
    uint32_t dtype;  /* enum xi_dtype */
    uint32_t memory; /* enum xi_memory */
    int32_t rank;    /* 0..XI_MAX_RANK; 0 is a scalar */
    int64_t dims[XI_MAX_RANK];
    void *data;
    uint64_t bytes; /* of data, padding excluded */
    int32_t fd;     /* XI_MEM_DMABUF only, else -1 */
    uint32_t reserved;
};

#endif
