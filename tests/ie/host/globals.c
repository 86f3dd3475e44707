/* What scripts see as globals, next to the language itself.
 *
 * Each is an object of the host, as in Internet Explorer up to 8: `typeof setTimeout` is 'object', and it has no `call`
 * and no `apply`. A script that counts on a function fails here as it fails there. There is no `window` and no
 * `document`.
 */
#include "host.h"

#include <stddef.h>

/* The arguments of a call from first to last; COM hands them over in reverse. */
struct call {
    DISPPARAMS *parameters;
    VARIANT *result;
    EXCEPINFO *exception;
};

struct function {
    /* First, so that a pointer to it is a pointer to the function. */
    IDispatch dispatch;
    const WCHAR *name;
    HRESULT (*run)(struct call *call);
};

static HRESULT print(struct call *call);
static HRESULT set_timeout(struct call *call);
static HRESULT set_interval(struct call *call);
static HRESULT clear_timer(struct call *call);
static HRESULT exit_with(struct call *call);
static HRESULT argument(struct call *call);

static IDispatchVtbl function_methods, globals_methods;

/* The place in this list, plus one, is the member's DISPID; 0 means the object itself. */
static struct function functions[] = {
    {{&function_methods}, L"print", print},
    {{&function_methods}, L"setTimeout", set_timeout},
    {{&function_methods}, L"setInterval", set_interval},
    {{&function_methods}, L"clearTimeout", clear_timer},
    {{&function_methods}, L"clearInterval", clear_timer},
    {{&function_methods}, L"exit", exit_with},
    {{&function_methods}, L"argument", argument},
};

static IDispatch global_object = {&globals_methods};

IDispatch *globals(void)
{
    return &global_object;
}

static VARIANT *argument_at(struct call *call, UINT index)
{
    UINT count = call->parameters->cArgs;
    return index < count ? &call->parameters->rgvarg[count - 1 - index] : NULL;
}

/* The argument as this type; VT_EMPTY when it is missing or cannot be converted. To be cleared. */
static VARIANT converted(struct call *call, UINT index, VARTYPE type)
{
    VARIANT value, *given = argument_at(call, index);
    VariantInit(&value);
    if (given && FAILED(VariantChangeType(&value, given, 0, type)))
        V_VT(&value) = VT_EMPTY;
    return value;
}

/* Throws an Error with this message in the script. */
static HRESULT throw(struct call *call, const WCHAR *message)
{
    if (call->exception) {
        ZeroMemory(call->exception, sizeof *call->exception);
        call->exception->scode = E_INVALIDARG;
        call->exception->bstrDescription = SysAllocString(message);
    }
    return DISP_E_EXCEPTION;
}

static HRESULT print(struct call *call)
{
    VARIANT *given = argument_at(call, 0);
    VARIANT text = converted(call, 0, VT_BSTR);
    if (V_VT(&text) == VT_BSTR)
        write_line(V_BSTR(&text) ? V_BSTR(&text) : L"");
    else if (!given || V_VT(given) == VT_EMPTY || V_VT(given) == VT_NULL)
        write_line(given && V_VT(given) == VT_NULL ? L"null" : L"undefined");
    else
        return throw(call, L"print takes a string");
    VariantClear(&text);
    return S_OK;
}

static HRESULT set_timer(struct call *call, BOOL repeats)
{
    VARIANT *function = argument_at(call, 0);
    VARIANT milliseconds = converted(call, 1, VT_I4);
    LONG number;

    if (!function || V_VT(function) != VT_DISPATCH || !V_DISPATCH(function))
        return throw(call, L"a timer takes a function; code in a string is not supported");
    /* Without a time, or with NaN, it is due at once. */
    number = timer_set(V_DISPATCH(function), V_VT(&milliseconds) == VT_I4 ? V_I4(&milliseconds) : 0, repeats);
    if (!number)
        return E_OUTOFMEMORY;
    if (call->result) {
        V_VT(call->result) = VT_I4;
        V_I4(call->result) = number;
    }
    return S_OK;
}

static HRESULT set_timeout(struct call *call)
{
    return set_timer(call, FALSE);
}

static HRESULT set_interval(struct call *call)
{
    return set_timer(call, TRUE);
}

static HRESULT clear_timer(struct call *call)
{
    VARIANT number = converted(call, 0, VT_I4);
    /* A browser takes null and undefined, too. */
    if (V_VT(&number) == VT_I4)
        timer_clear(V_I4(&number));
    return S_OK;
}

static HRESULT exit_with(struct call *call)
{
    VARIANT code = converted(call, 0, VT_I4);
    end(V_VT(&code) == VT_I4 ? V_I4(&code) : EXIT_DONE);
    return S_OK;
}

static HRESULT argument(struct call *call)
{
    VARIANT name = converted(call, 0, VT_BSTR);
    const WCHAR *value;
    if (V_VT(&name) != VT_BSTR)
        return throw(call, L"argument takes a name");
    value = given(V_BSTR(&name) ? V_BSTR(&name) : L"");
    VariantClear(&name);
    /* Not given: undefined. */
    if (value && call->result) {
        V_VT(call->result) = VT_BSTR;
        V_BSTR(call->result) = SysAllocString(value);
    }
    return S_OK;
}

/* What all our objects have in common: they are static, so references are not counted, and have no type library. */

static HRESULT WINAPI query(IDispatch *object, REFIID id, void **found)
{
    *found = NULL;
    if (!IsEqualGUID(id, &IID_IUnknown) && !IsEqualGUID(id, &IID_IDispatch))
        return E_NOINTERFACE;
    *found = object;
    return S_OK;
}

static ULONG WINAPI reference(IDispatch *object)
{
    return 1;
}

static HRESULT WINAPI type_info_count(IDispatch *object, UINT *count)
{
    *count = 0;
    return S_OK;
}

static HRESULT WINAPI type_info(IDispatch *object, UINT index, LCID language, ITypeInfo **info)
{
    *info = NULL;
    return DISP_E_BADINDEX;
}

static HRESULT WINAPI no_names(IDispatch *object, REFIID unused, LPOLESTR *names, UINT count, LCID language, DISPID *ids)
{
    ids[0] = DISPID_UNKNOWN;
    return DISP_E_UNKNOWNNAME;
}

static HRESULT WINAPI global_names(IDispatch *object, REFIID unused, LPOLESTR *names, UINT count, LCID language,
                                   DISPID *ids)
{
    for (UINT index = 0; index < ARRAYSIZE(functions); index++) {
        if (!lstrcmpW(names[0], functions[index].name)) {
            ids[0] = index + 1;
            return S_OK;
        }
    }
    ids[0] = DISPID_UNKNOWN;
    return DISP_E_UNKNOWNNAME;
}

static HRESULT WINAPI function_invoke(IDispatch *object, DISPID id, REFIID unused, LCID language, WORD flags,
                                      DISPPARAMS *parameters, VARIANT *result, EXCEPINFO *exception, UINT *bad)
{
    struct call call = {parameters, result, exception};
    if (id != DISPID_VALUE)
        return DISP_E_MEMBERNOTFOUND;
    if (result)
        VariantInit(result);
    if (flags & DISPATCH_METHOD)
        return ((struct function *)object)->run(&call);
    /* Somebody makes a string of it, to see what it is. */
    if ((flags & DISPATCH_PROPERTYGET) && result) {
        V_VT(result) = VT_BSTR;
        V_BSTR(result) = SysAllocString(L"[object]");
        return S_OK;
    }
    return DISP_E_MEMBERNOTFOUND;
}

static HRESULT WINAPI globals_invoke(IDispatch *object, DISPID id, REFIID unused, LCID language, WORD flags,
                                     DISPPARAMS *parameters, VARIANT *result, EXCEPINFO *exception, UINT *bad)
{
    if (id < 1 || id > (DISPID)ARRAYSIZE(functions))
        return DISP_E_MEMBERNOTFOUND;
    struct function *function = &functions[id - 1];
    if (flags & DISPATCH_METHOD)
        return function_invoke(&function->dispatch, DISPID_VALUE, unused, language, flags, parameters, result, exception,
                               bad);
    if (!(flags & DISPATCH_PROPERTYGET) || !result)
        return DISP_E_MEMBERNOTFOUND;
    V_VT(result) = VT_DISPATCH;
    V_DISPATCH(result) = &function->dispatch;
    return S_OK;
}

static IDispatchVtbl function_methods = {
    query, reference, reference, type_info_count, type_info, no_names, function_invoke,
};
static IDispatchVtbl globals_methods = {
    query, reference, reference, type_info_count, type_info, global_names, globals_invoke,
};
