/* The script engine: made in the version that was asked for, fed with files, asked for its errors. */
/* First: with it, the headers define the ids of the interfaces, which no library of mingw has. */
#include <initguid.h>

#include "host.h"

#include <stdio.h>
#include <stdlib.h>

/* {f414c260-6ac0-11cf-b6d1-00aa00bbbb58}, the class of JScript; mingw's headers do not name it. */
DEFINE_GUID(CLSID_JScript, 0xf414c260, 0x6ac0, 0x11cf, 0xb6, 0xd1, 0x00, 0xaa, 0x00, 0xbb, 0xbb, 0x58);

/* The property that chooses the version of the language; not in mingw's headers either. */
#define SCRIPTPROP_INVOKE_VERSIONING 0x4000

#define MOST_FILES 64

static IActiveScript *engine;
static IActiveScriptParse64 *parser;
/* The files in the order of loading; an error's source position gives its index, plus one. */
static const WCHAR *files[MOST_FILES];
static DWORD file_count;

static HRESULT WINAPI site_query(IActiveScriptSite *site, REFIID id, void **object)
{
    *object = NULL;
    if (!IsEqualGUID(id, &IID_IUnknown) && !IsEqualGUID(id, &IID_IActiveScriptSite))
        return E_NOINTERFACE;
    *object = site;
    return S_OK;
}

/* The site is static: nobody's reference ends its life. */
static ULONG WINAPI site_reference(IActiveScriptSite *site)
{
    return 1;
}

static HRESULT WINAPI site_language(IActiveScriptSite *site, LCID *language)
{
    *language = MAKELCID(MAKELANGID(LANG_ENGLISH, SUBLANG_ENGLISH_US), SORT_DEFAULT);
    return S_OK;
}

static HRESULT WINAPI site_item(IActiveScriptSite *site, LPCOLESTR name, DWORD wanted, IUnknown **item, ITypeInfo **type)
{
    if (item)
        *item = NULL;
    if (type)
        *type = NULL;
    if (wanted & SCRIPTINFO_IUNKNOWN)
        *item = (IUnknown *)globals();
    return S_OK;
}

static HRESULT WINAPI site_version(IActiveScriptSite *site, BSTR *version)
{
    return E_NOTIMPL;
}

static HRESULT WINAPI site_terminated(IActiveScriptSite *site, const VARIANT *result, const EXCEPINFO *exception)
{
    return S_OK;
}

static HRESULT WINAPI site_state(IActiveScriptSite *site, SCRIPTSTATE state)
{
    return S_OK;
}

/* Unlike a browser, which goes on, we end: a test must not pass over a script's error. */
static HRESULT WINAPI site_error(IActiveScriptSite *site, IActiveScriptError *error)
{
    EXCEPINFO exception = {0};
    DWORD file = 0;
    ULONG line = 0;
    LONG column = 0;
    WCHAR text[1024];

    IActiveScriptError_GetExceptionInfo(error, &exception);
    IActiveScriptError_GetSourcePosition(error, &file, &line, &column);
    _snwprintf(text, ARRAYSIZE(text), L"%s:%lu: script error: %s (0x%08lx)",
               file && file <= file_count ? files[file - 1] : L"(unknown)", line + 1,
               exception.bstrDescription ? exception.bstrDescription : L"without a description", exception.scode);
    text[ARRAYSIZE(text) - 1] = 0;
    write_line(text);
    SysFreeString(exception.bstrSource);
    SysFreeString(exception.bstrDescription);
    SysFreeString(exception.bstrHelpFile);
    end(EXIT_SCRIPT_ERROR);
    return S_OK;
}

static HRESULT WINAPI site_enter_or_leave(IActiveScriptSite *site)
{
    return S_OK;
}

static IActiveScriptSiteVtbl site_methods = {
    site_query, site_reference, site_reference, site_language, site_item,           site_version,
    site_terminated, site_state, site_error,     site_enter_or_leave, site_enter_or_leave,
};
static IActiveScriptSite site = {&site_methods};

static HRESULT choose_version(LONG version)
{
    IActiveScriptProperty *properties;
    VARIANT value;
    HRESULT result = IActiveScript_QueryInterface(engine, &IID_IActiveScriptProperty, (void **)&properties);
    if (FAILED(result))
        return result;
    V_VT(&value) = VT_I4;
    V_I4(&value) = version;
    result = IActiveScriptProperty_SetProperty(properties, SCRIPTPROP_INVOKE_VERSIONING, NULL, &value);
    IActiveScriptProperty_Release(properties);
    return result;
}

HRESULT engine_start(LONG version)
{
    HRESULT result =
        CoCreateInstance(&CLSID_JScript, NULL, CLSCTX_INPROC_SERVER, &IID_IActiveScript, (void **)&engine);
    if (SUCCEEDED(result))
        result = IActiveScript_QueryInterface(engine, &IID_IActiveScriptParse64, (void **)&parser);
    /* Only before it is initialized does the engine take its version. */
    if (SUCCEEDED(result))
        result = choose_version(version);
    if (SUCCEEDED(result))
        result = IActiveScriptParse64_InitNew(parser);
    if (SUCCEEDED(result))
        result = IActiveScript_SetScriptSite(engine, &site);
    if (SUCCEEDED(result))
        result = IActiveScript_AddNamedItem(engine, L"host", SCRIPTITEM_ISVISIBLE | SCRIPTITEM_GLOBALMEMBERS);
    if (SUCCEEDED(result))
        result = IActiveScript_SetScriptState(engine, SCRIPTSTATE_CONNECTED);
    return result;
}

/* The text of a file, to be freed; NULL when it cannot be read or is not ASCII, which was reported. */
static WCHAR *read_ascii(const WCHAR *path)
{
    FILE *file = _wfopen(path, L"rb");
    WCHAR *text = NULL, message[1024];
    long length = -1;

    if (file && !fseek(file, 0, SEEK_END) && (length = ftell(file)) >= 0)
        text = malloc((length + 1) * sizeof *text);
    if (!text) {
        _snwprintf(message, ARRAYSIZE(message) - 1, L"iehost: cannot read %s", path);
        write_line(message);
        if (file)
            fclose(file);
        return NULL;
    }
    rewind(file);
    for (long at = 0; at < length; at++) {
        int byte = fgetc(file);
        if (byte < 0 || byte > 0x7f) {
            /* Internet Explorer reads a script in the code page of the page, which is not ours to choose. */
            _snwprintf(message, ARRAYSIZE(message) - 1, L"iehost: %s is not ASCII at byte %ld; write \\u escapes", path, at);
            write_line(message);
            free(text);
            fclose(file);
            return NULL;
        }
        text[at] = byte;
    }
    text[length] = 0;
    fclose(file);
    return text;
}

BOOL engine_run(const WCHAR *path)
{
    WCHAR *text;
    if (file_count == MOST_FILES) {
        write_line(L"iehost: too many files; the limit is 64");
        end(EXIT_USAGE);
        return FALSE;
    }
    text = read_ascii(path);
    if (!text) {
        end(EXIT_USAGE);
        return FALSE;
    }
    files[file_count++] = path;
    HRESULT result = IActiveScriptParse64_ParseScriptText(parser, text, NULL, NULL, NULL, file_count, 0,
                                                          SCRIPTTEXT_ISVISIBLE, NULL, NULL);
    free(text);
    if (FAILED(result))
        end(EXIT_SCRIPT_ERROR);
    return !has_ended();
}

void engine_call(IDispatch *function)
{
    DISPPARAMS nothing = {0};
    EXCEPINFO exception = {0};
    UINT argument;
    /* What it throws goes to site_error. The id is reserved, and all zeros. */
    const IID none = {0};
    IDispatch_Invoke(function, DISPID_VALUE, &none, LOCALE_USER_DEFAULT, DISPATCH_METHOD, &nothing, NULL,
                     &exception, &argument);
}
