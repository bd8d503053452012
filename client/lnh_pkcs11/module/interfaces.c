/*
 * Hand out the functions: as the list of v2.40, and as the interfaces of v2.40, v3.0, v3.1 and v3.2.
 *
 * These three functions alone are exported. Lists point at this module's own functions, whatever else of the same names
 * an application has loaded.
 */
#include "pkcs11.h"

#include <stdbool.h>
#include <string.h>

#define EXPORTED __attribute__((visibility("default")))
#define LISTED(name, parameters) .name = name,

static CK_FUNCTION_LIST functions_2_40 = {.version = {2, 40}, CK_FUNCTIONS_2_40(LISTED)};
static CK_FUNCTION_LIST_3_0 functions_3_0 = {
    .version = {3, 0}, CK_FUNCTIONS_2_40(LISTED) CK_FUNCTIONS_3_0(LISTED)};
static CK_FUNCTION_LIST_3_0 functions_3_1 = {
    .version = {3, 1}, CK_FUNCTIONS_2_40(LISTED) CK_FUNCTIONS_3_0(LISTED)};
static CK_FUNCTION_LIST_3_2 functions_3_2 = {
    .version = {3, 2}, CK_FUNCTIONS_2_40(LISTED) CK_FUNCTIONS_3_0(LISTED) CK_FUNCTIONS_3_2(LISTED)};

static CK_CHAR interface_name[] = "PKCS 11";

/* The newest is last, and is what an application gets that names no version. No flag: it is not fork safe. */
static CK_INTERFACE interfaces[] = {
    {interface_name, &functions_2_40, 0},
    {interface_name, &functions_3_0, 0},
    {interface_name, &functions_3_1, 0},
    {interface_name, &functions_3_2, 0},
};
#define INTERFACES (sizeof interfaces / sizeof interfaces[0])

EXPORTED CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list)
{
    if (list == NULL)
        return CKR_ARGUMENTS_BAD;
    *list = &functions_2_40;
    return CKR_OK;
}

EXPORTED CK_RV C_GetInterfaceList(CK_INTERFACE_PTR list, CK_ULONG_PTR count)
{
    if (count == NULL)
        return CKR_ARGUMENTS_BAD;
    CK_ULONG room = *count;
    *count = INTERFACES;
    if (list == NULL)
        return CKR_OK;
    if (room < INTERFACES)
        return CKR_BUFFER_TOO_SMALL;
    memcpy(list, interfaces, sizeof interfaces);
    return CKR_OK;
}

static bool serves(const CK_INTERFACE *interface, const CK_UTF8CHAR *name, const CK_VERSION *version, CK_FLAGS flags)
{
    const CK_VERSION *mine = interface->pFunctionList;
    return (name == NULL || strcmp((const char *)name, (const char *)interface->pInterfaceName) == 0) &&
           (version == NULL || (version->major == mine->major && version->minor == mine->minor)) &&
           (flags & ~interface->flags) == 0;
}

EXPORTED CK_RV C_GetInterface(CK_UTF8CHAR_PTR name, CK_VERSION_PTR version, CK_INTERFACE_PTR_PTR interface,
                              CK_FLAGS flags)
{
    if (interface == NULL)
        return CKR_ARGUMENTS_BAD;
    for (size_t i = INTERFACES; i > 0; i--) {
        if (serves(&interfaces[i - 1], name, version, flags)) {
            *interface = &interfaces[i - 1];
            return CKR_OK;
        }
    }
    *interface = NULL;
    return CKR_ARGUMENTS_BAD;
}
