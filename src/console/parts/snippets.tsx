/** The call that the page just made (or is about to make), to copy. */
import { useState } from "preact/hooks";
import { SERVER } from "../api.ts";
import { snippetsOf, type Call } from "../call.ts";
import { useSession } from "../session.ts";
import { CopyButton, Tabs } from "./states.tsx";

export function Snippets({ call }: { call: Call }) {
  const { authentication } = useSession();
  const snippets = snippetsOf(call, SERVER, authentication === "api_key");
  const [title, setTitle] = useState(snippets[0]!.title);
  const { code } = snippets.find((snippet) => snippet.title === title) ?? snippets[0]!;
  return (
    <section class="snippets">
      <h3>The same call</h3>
      <div class="row">
        <Tabs
          label="Language"
          tabs={snippets.map((snippet) => ({ id: snippet.title, title: snippet.title }))}
          current={title}
          onChoose={setTitle}
        />
        <CopyButton text={code} />
      </div>
      <pre tabIndex={0}>
        <code>{code}</code>
      </pre>
    </section>
  );
}
