/** Signing in with a key of the server: it is kept in a cookie that scripts can't read. */
import { useState } from "preact/hooks";
import { useAction } from "../api.ts";
import { signIn } from "../session.ts";
import { InputField } from "../parts/fields.tsx";
import { ErrorNote } from "../parts/states.tsx";

export function SignInPage({ onSignedIn }: { onSignedIn: () => void }) {
  const [key, setKey] = useState("");
  const submission = useAction(async () => {
    await signIn(key.trim());
    onSignedIn();
  });
  return (
    <form
      class="sign-in card"
      onSubmit={(event) => {
        event.preventDefault();
        submission.run();
      }}
    >
      <h1>Sign in</h1>
      <p class="quiet">
        This server wants a key: one of <code>api_keys</code> of its configuration.
      </p>
      {/* Password managers want both. */}
      <input type="text" name="username" autocomplete="username" value="infermill" hidden readOnly />
      <InputField
        label="API key"
        type="password"
        name="password"
        autocomplete="current-password"
        required
        autofocus
        value={key}
        onValue={setKey}
      />
      {submission.error && <ErrorNote error={submission.error} />}
      <button class="main" type="submit" disabled={submission.isBusy || key.trim() === ""}>
        Sign in
      </button>
    </form>
  );
}
